//go:build linux

// Package netns_test sends real packets through the dataplane of one node, in network namespaces of its own: the
// node, pods on it behind point-to-point links as minato makes them, a pod of another node, and a machine outside.
package netns_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

const (
	nodeAddr    = "172.30.0.11"
	nodeAddr6   = "fd00:30::11"
	outsideAddr = "172.30.0.9"
	farPod      = "10.244.2.5" // on another node: behind the machine outside
)

// world is one node and what is around it.
type world struct {
	t       testing.TB
	node    netns.NS
	outside netns.NS
	pods    map[string]netns.NS // by address
	self    *model.Node
	dp      *kernel.Applier
	snap    *model.Snapshot
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, node: netnstest.Namespace(t, "node"), outside: netnstest.Namespace(t, "outside"), pods: map[string]netns.NS{},
		self: &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr(nodeAddr), netip.MustParseAddr(nodeAddr6)},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}},
		snap: model.Empty()}
	netnstest.Link(t, w.node, "eth0", nodeAddr+"/24", w.outside, "eth0", outsideAddr+"/24")
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		netnstest.Run(t, w.node, "sysctl", "-qw", s)
	}
	w.run(w.node, "ip -6 address add "+nodeAddr6+"/64 dev eth0 nodad")
	w.run(w.outside, "ip -6 address add fd00:30::9/64 dev eth0 nodad", "ip address add "+farPod+"/32 dev lo",
		"ip route add default via "+nodeAddr, "ip -6 route add default via "+nodeAddr6)
	w.run(w.node, "ip route add default via "+outsideAddr, "ip -6 route add default via fd00:30::9")
	netnstest.Settle(t, w.node)
	netnstest.Settle(t, w.outside)
	w.dp = w.open()
	return w
}

func (w *world) run(ns netns.NS, commands ...string) {
	w.t.Helper()
	for _, c := range commands {
		netnstest.Run(w.t, ns, strings.Fields(c)...)
	}
}

// open starts an applier, as a new process would.
func (w *world) open() *kernel.Applier {
	w.t.Helper()
	dp, err := kernel.Open(kernel.Config{Netns: w.node, ServiceCIDRs: []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/112")}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { dp.Close() })
	return dp
}

// pod attaches a pod on the node: 10.244.1.N and fd00:244:1::N.
func (w *world) pod(n int) netns.NS {
	w.t.Helper()
	addr, addr6 := fmt.Sprintf("10.244.1.%d", n), fmt.Sprintf("fd00:244:1::%x", n)
	if ns, ok := w.pods[addr]; ok {
		return ns
	}
	ns := netnstest.Namespace(w.t, fmt.Sprintf("pod%d", n))
	dev := fmt.Sprintf("pod%d", n)
	netnstest.Link(w.t, w.node, dev, "", ns, "eth0", addr+"/32")
	w.run(ns, "ip route add 169.254.1.1 dev eth0", "ip route add default via 169.254.1.1",
		"ip -6 address add "+addr6+"/128 dev eth0 nodad", "ip -6 route add default via fe80::1 dev eth0")
	w.run(w.node, "ip address add 169.254.1.1/32 dev "+dev, "ip route add "+addr+" dev "+dev,
		"ip -6 address add fe80::1/64 dev "+dev+" nodad", "ip -6 route add "+addr6+" dev "+dev)
	netnstest.Settle(w.t, ns)
	netnstest.Settle(w.t, w.node)
	w.pods[addr] = ns
	return ns
}

// service makes a Service of name, with TCP and UDP on port 80, at 10.96.0.ID and NodePort 30000+ID.
func (w *world) service(name string, id int, edit func(*model.Service), endpoints ...string) *model.Service {
	ip := netip.AddrFrom4([4]byte{10, 96, byte(id >> 8), byte(id)})
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, Proxied: true, ClusterIPs: []netip.Addr{ip}}
	sl := &model.BackendSlice{Name: name}
	for _, p := range []model.Protocol{model.TCP, model.UDP} {
		s.Frontends = append(s.Frontends,
			model.Frontend{Addr: netip.AddrPortFrom(ip, 80), Protocol: p, Kind: model.ClusterIP, PortName: p.String()},
			model.Frontend{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(30000+id)), Protocol: p, Kind: model.NodePort, PortName: p.String()})
		for _, e := range endpoints {
			addr := netip.MustParseAddr(e)
			on := "node2"
			if w.self.IsLocal(addr) {
				on = "node1"
			}
			sl.Backends = append(sl.Backends, model.Backend{Addr: netip.AddrPortFrom(addr, 8080), Protocol: p,
				PortName: p.String(), NodeName: on, Ready: true, Serving: true})
		}
	}
	s.Slices = []*model.BackendSlice{sl}
	if edit != nil {
		edit(s)
	}
	return s
}

// apply takes the node to the world with these Services instead of those of their names.
func (w *world) apply(services ...*model.Service) {
	w.t.Helper()
	w.snap = w.snap.With(func(e *model.Edit) {
		e.SetComplete()
		for _, s := range services {
			e.SetService(s)
		}
	}).On(w.self)
	w.programmed()
}

func (w *world) programmed() {
	w.t.Helper()
	if failed, err := w.dp.Program(context.Background(), w.snap); err != nil || len(failed) > 0 {
		w.t.Fatalf("program: %v %v", failed, err)
	}
	if err := w.dp.Reap(context.Background(), w.snap); err != nil {
		w.t.Fatalf("reap: %v", err)
	}
}

// serve starts servers on port 8080, TCP and UDP, in pods of the node; they answer with their address.
func (w *world) serve(n ...int) {
	for _, i := range n {
		ns := w.pod(i)
		for _, addr := range []string{fmt.Sprintf("10.244.1.%d", i), fmt.Sprintf("fd00:244:1::%x", i)} {
			at := netip.AddrPortFrom(netip.MustParseAddr(addr), 8080).String()
			netnstest.ServeTCP(w.t, ns, addr, at)
			netnstest.ServeUDP(w.t, ns, addr, at)
		}
	}
}
