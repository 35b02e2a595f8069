//go:build linux

package kernel_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, a ...any)
	Errorf(format string, a ...any)
	Logf(format string, a ...any)
}

func node1() *model.Node {
	return &model.Node{Name: "node1",
		Addrs:    []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00:30::11")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}}
}

// web is a Service of ready endpoints "10.244.1.5" and so on, on node1 if they are of its pods, at
// 10.96.0.ID:80 and, from outside, at NodePort 30000+ID.
func web(name string, id int, endpoints ...string) *model.Service {
	ip := netip.AddrFrom4([4]byte{10, 96, byte(id >> 8), byte(id)})
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, Proxied: true,
		ClusterIPs: []netip.Addr{ip},
		Frontends: []model.Frontend{
			{Addr: netip.AddrPortFrom(ip, 80), Protocol: model.TCP, Kind: model.ClusterIP, PortName: "http"},
			{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(30000+id)), Protocol: model.TCP, Kind: model.NodePort, PortName: "http"},
		}}
	sl := &model.BackendSlice{Name: name}
	for _, e := range endpoints {
		addr := netip.MustParseAddr(e)
		on := "node2"
		if node1().IsLocal(addr) {
			on = "node1"
		}
		sl.Backends = append(sl.Backends, model.Backend{Addr: netip.AddrPortFrom(addr, 8080), Protocol: model.TCP,
			PortName: "http", NodeName: on, Ready: true, Serving: true})
	}
	s.Slices = []*model.BackendSlice{sl}
	return s
}

// snapshot is a complete one of node1 with these Services.
func snapshot(services ...*model.Service) *model.Snapshot {
	return edited(model.Empty(), services...).On(theNode)
}

var theNode = node1()

func edited(s *model.Snapshot, services ...*model.Service) *model.Snapshot {
	return s.With(func(e *model.Edit) {
		e.SetComplete()
		for _, svc := range services {
			e.SetService(svc)
		}
	})
}

var serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/112")}

func open(t tester, k *nfnltest.Kernel) *kernel.Applier {
	t.Helper()
	a, err := kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: serviceCIDRs})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return a
}

// apply takes the node to a snapshot in both phases.
func apply(t tester, a *kernel.Applier, s *model.Snapshot) {
	t.Helper()
	failed, err := a.Program(context.Background(), s)
	if err != nil || len(failed) > 0 {
		t.Fatalf("program: %v %v", failed, err)
	}
	if err := a.Reap(context.Background(), s); err != nil {
		t.Fatalf("reap: %v", err)
	}
}

func key(scope model.Scope, addr string, protocol model.Protocol) nftables.Key {
	ap := netip.MustParseAddrPort(addr)
	return nftables.Key{Scope: scope, Addr: ap.Addr(), Protocol: protocol, Port: ap.Port()}
}

// client is an address of a scope, as node1 sees it.
func client(k nftables.Key) netip.AddrPort {
	addr := map[bool]map[model.Scope]string{
		false: {model.Inside: "10.244.1.250", model.Outside: "192.0.2.7"},
		true:  {model.Inside: "fd00:244:1::fa", model.Outside: "2001:db8::7"},
	}[k.Addr.Is6()][k.Scope]
	return netip.AddrPortFrom(netip.MustParseAddr(addr), 40000)
}

// outcome is what all packets of a new connection meet in the kernel: one action, and the set of destinations.
type outcome struct {
	action     string
	chain      string           // in which it ended
	to         []netip.AddrPort // sorted
	masquerade bool
	port       servicePort      // whose it is
	pool       []netip.AddrPort // endpoints from which this client is shut out
}

type servicePort struct {
	service model.ServiceName
	port    string
}

// send runs packets to k through the rules, once for every number that the rules can draw.
func send(k *nfnltest.Kernel, to nftables.Key) outcome {
	var out outcome
	for i, n := uint32(0), uint32(1); i < n; i++ {
		p := nfnltest.Packet{Src: client(to), Dst: netip.AddrPortFrom(to.Addr, to.Port), Protocol: uint8(to.Protocol),
			Random: func(of uint32) uint32 { n = of; return i }}
		r := k.Run(nfnl.FamilyOf(to.Addr), kernel.DefaultTable, "prerouting", p)
		if out.action != "" && out.action != r.Action {
			return outcome{action: out.action + " or " + r.Action}
		}
		out.action, out.chain = r.Action, r.Chain
		if r.Action == "dnat" {
			out.to = append(out.to, r.To)
			p.Original, p.Dst = p.Dst, r.To
			out.masquerade = k.Run(nfnl.FamilyOf(to.Addr), kernel.DefaultTable, "postrouting", p).Action == "snat"
		}
	}
	slices.SortFunc(out.to, netip.AddrPort.Compare)
	return out
}

func (o outcome) String() string {
	return fmt.Sprintf("%s %v masquerade=%t", o.action, o.to, o.masquerade)
}

func expect(t testing.TB, k *nfnltest.Kernel, to nftables.Key, want string) {
	t.Helper()
	if got := send(k, to).String(); got != want {
		t.Errorf("%s: got %s, want %s", to, got, want)
	}
}
