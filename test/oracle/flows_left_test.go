package oracle

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
	"minato/test/oracle/upstream"
)

// conntrack is a fake that remembers what was deleted.
type conntrack struct{ flows, deleted []nfnl.Flow }

func (c *conntrack) Flows(f nfnl.Family, protocol uint8, yield func(nfnl.Flow)) error {
	for _, x := range c.flows {
		if x.Family == f && x.Protocol == protocol {
			yield(x)
		}
	}
	return nil
}

func (c *conntrack) DeleteFlow(f nfnl.Flow) error {
	c.deleted = append(c.deleted, f)
	return nil
}

// The flows that kube-proxy deletes are deleted, and no others of its Services' but those of SCTP, which it forgets.
func TestFlowsThatLeadNowhereAreDeletedAsByKubeProxy(t *testing.T) {
	cleanings, err := upstream.Cleanings(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(cleanings) == 0 {
		t.Fatal("no calls")
	}
	for i, c := range cleanings {
		t.Run(fmt.Sprint(i), func(t *testing.T) { checkCleaning(t, c) })
	}
}

func checkCleaning(t *testing.T, u upstream.Cleaning) {
	ct := &conntrack{}
	stays := map[upstream.ConntrackFlow]bool{}
	for _, f := range u.After {
		stays[f] = true
	}
	for i, f := range u.Before {
		dst := f.Dst
		if strings.HasPrefix(dst, ":") {
			dst = nodeAddr(false) + dst
		}
		ct.flows = append(ct.flows, nfnl.Flow{Family: nfnl.IPv4, Protocol: f.Protocol, Src: netip.MustParseAddrPort("10.0.0.2:4711"),
			Dst: netip.MustParseAddrPort(dst), ReplySrc: netip.MustParseAddrPort(f.ReplySrc), ID: uint32(i)})
	}
	a, err := kernel.Open(kernel.Config{Kernel: nfnltest.New(), Conntrack: ct})
	if err != nil {
		t.Fatal(err)
	}
	n := &model.Node{Name: "here", Addrs: addrs(nodeAddr(false))}
	without := model.Empty().With(func(e *model.Edit) { e.SetComplete() })
	program(t, a, without.On(n))
	with := without.With(func(e *model.Edit) { e.SetService(cleanedService(t, u)) })
	if _, err := a.Program(context.Background(), with.On(n)); err != nil {
		t.Fatal(err)
	}
	deleted := map[uint32]bool{}
	for _, f := range ct.deleted {
		deleted[f.ID] = true
	}
	for i, f := range u.Before {
		want := !stays[f]
		if model.Protocol(f.Protocol) == model.SCTP {
			asUDP := f
			asUDP.Protocol = uint8(model.UDP)
			want = !stays[asUDP] // what becomes of the same flow of UDP
		}
		if unserved(u, f) {
			want = true
		}
		if deleted[uint32(i)] != want {
			t.Errorf("flow %+v: deleted %t, want %t", f, deleted[uint32(i)], want)
		}
	}
}

// unserved: the flow is to a frontend without any endpoint. kube-proxy leaves it, for ever if packets come
// (kubernetes#139628).
func unserved(u upstream.Cleaning, f upstream.ConntrackFlow) bool {
	return slices.ContainsFunc(u.Ports, func(p upstream.CleanedPort) bool {
		at := func(ip string) bool { return f.Dst == ip+":"+strconv.Itoa(p.Port) }
		return len(p.Serving) == 0 && protocol(upstream.Flow{Protocol: p.Protocol}) == model.Protocol(f.Protocol) &&
			(at(p.ClusterIP) || slices.ContainsFunc(p.Others, at))
	})
}

// cleanedService is the Service of which the flows are, as a model.Service.
func cleanedService(t *testing.T, u upstream.Cleaning) *model.Service {
	s := &model.Service{Name: model.ServiceName{Namespace: "test", Name: "cleaned"}, Proxied: true}
	sl := &model.BackendSlice{}
	for _, p := range u.Ports {
		proto := protocol(upstream.Flow{Protocol: p.Protocol})
		add := func(kind model.FrontendKind, addr string, port int) {
			at := netip.MustParseAddrPort(addr + ":" + strconv.Itoa(port))
			s.Frontends = append(s.Frontends, model.Frontend{Addr: at, Protocol: proto, Kind: kind, PortName: p.Name})
		}
		add(model.ClusterIP, p.ClusterIP, p.Port)
		for _, o := range p.Others {
			add(model.ExternalIP, o, p.Port)
		}
		if p.NodePort != 0 {
			add(model.NodePort, "0.0.0.0", p.NodePort)
		}
		for _, e := range p.Serving {
			sl.Backends = append(sl.Backends, model.Backend{Addr: netip.MustParseAddrPort(e), Protocol: proto, PortName: p.Name, Ready: true, Serving: true})
		}
	}
	s.Slices = []*model.BackendSlice{sl}
	return s
}
