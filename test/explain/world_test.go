//go:build linux

// Package explain_test compares what explain says of connections with what becomes of them: real packets between
// pods, nodes, the LAN and a network behind it, in the namespaces of a three-node instance, through its dataplane and
// its answers to ARP.
//
// It needs root and skips the test otherwise.
package explain_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"minato/internal/announce/arp"
	"minato/internal/announce/lan"
	"minato/internal/cluster/nodes"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/internal/source"
	"minato/internal/source/file"
)

const (
	podsPerNode = 3 // the last one of a node is behind no Service
	backendPort = 8080
)

var (
	lanAddr     = netip.MustParseAddr("172.30.0.1")
	externalIPs = netip.MustParsePrefix("192.0.2.0/24")
	serviceCIDR = netip.MustParsePrefix("10.96.0.0/12")
	balanced    = model.AddrRange{First: netip.MustParseAddr("172.30.0.100"), Last: netip.MustParseAddr("172.30.0.250")}
)

// place is where connections start, and most of them may end.
type place struct {
	name string // as explain's --from wants it
	addr netip.Addr
	ns   netns.NS
	bind bool // the address is not the one that the kernel would choose
}

// world is an instance's network with the data path of each node, fed from YAML.
type world struct {
	t       *testing.T
	builder *source.Builder
	nodes   []*node
	pods    []place
	lan     []place // the host by its address on the LAN, and by one that is behind it
	changes int
}

type node struct {
	place
	dataplane *kernel.Applier
	speaker   *lan.Speaker
}

func newWorld(t *testing.T) *world {
	t.Helper()
	outside := netnstest.New(t)
	cfg := nodes.Config{
		Name: netnstest.Name("x"), StateDir: t.TempDir(), HostNetns: outside.Host,
		Families: []nodes.Family{{NodeCIDR: netip.MustParsePrefix("172.30.0.0/24"), PodCIDR: netip.MustParsePrefix("10.244.0.0/16"),
			ServiceCIDR: serviceCIDR, HostAddr: lanAddr}},
	}
	for i := range 3 {
		cfg.Nodes = append(cfg.Nodes, nodes.Node{Name: fmt.Sprint("node", i+1), Addrs: []netip.Addr{nodeAddr(i)},
			PodCIDRs: []netip.Prefix{podCIDR(i)}})
	}
	network, err := nodes.Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		network.Close()
		if err := nodes.Delete(context.Background(), cfg); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, builder: source.NewBuilder()}
	w.builder.Update(func(b *source.Batch) {
		b.SetLoadBalancerDefaults(source.LoadBalancerDefaults{Pools: []model.Pool{{Name: "default", AutoAssign: true, Ranges: []model.AddrRange{balanced}}}})
	})
	w.lan = []place{
		{name: lanAddr.String(), addr: lanAddr, ns: outside.Host},
		{name: netnstest.HostAddr, addr: netip.MustParseAddr(netnstest.HostAddr), ns: outside.Host, bind: true},
	}
	// Somebody on the LAN has a route for externalIPs; explain takes the first node where it cannot know.
	netnstest.Run(t, outside.Host, "ip", "route", "add", externalIPs.String(), "via", nodeAddr(0).String())
	var speakers sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); speakers.Wait() })
	for i, n := range cfg.Nodes {
		ns, err := network.Netns(n.Name)
		if err != nil {
			t.Fatal(err)
		}
		w.addNode(place{name: "node/" + n.Name, addr: nodeAddr(i), ns: ns})
		speaker := w.nodes[i].speaker
		speakers.Go(func() { _ = speaker.Run(ctx) })
		for range podsPerNode {
			w.addPod(network, n.Name)
		}
	}
	return w
}

func nodeAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 30, 0, byte(11 + i)}) }
func podCIDR(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(1 + i), 0}), 24)
}

func (w *world) addNode(p place) {
	w.t.Helper()
	dp, err := kernel.Open(kernel.Config{Netns: p.ns, ServiceCIDRs: []netip.Prefix{serviceCIDR}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { dp.Close() })
	name := strings.TrimPrefix(p.name, "node/")
	w.nodes = append(w.nodes, &node{p, dp, arp.New(arp.Config{Node: name, Netns: p.ns, Addr: p.addr, Log: slog.New(slog.DiscardHandler)})})
	w.serve(p)
}

func (w *world) addPod(network *nodes.Network, node string) {
	w.t.Helper()
	ns := netnstest.Namespace(w.t, "pod")
	r, err := network.Attach(w.t.Context(), nodes.AttachRequest{Node: node, Netns: ns.Path(), ContainerID: netnstest.Name("container")})
	if err != nil {
		w.t.Fatal(err)
	}
	p := place{name: r.Addrs[0].Addr().String(), addr: r.Addrs[0].Addr(), ns: ns}
	w.pods = append(w.pods, p)
	w.serve(p)
}

// serve answers at the port of backends with its own address.
func (w *world) serve(p place) {
	w.t.Helper()
	at := netip.AddrPortFrom(p.addr, backendPort).String()
	netnstest.ServeTCP(w.t, p.ns, at, at)
	netnstest.ServeUDP(w.t, p.ns, at, at)
}

// origins are all places from which connections start.
func (w *world) origins() []place {
	all := slices.Concat(w.pods, w.lan)
	for _, n := range w.nodes {
		all = append(all, n.place)
	}
	return all
}

// backends are the places that Services may have: pods, and the nodes, as pods in their networks have.
func (w *world) backends() []place {
	var all []place
	for i, p := range w.pods {
		if i%podsPerNode != podsPerNode-1 {
			all = append(all, p)
		}
	}
	for _, n := range w.nodes {
		all = append(all, n.place)
	}
	return all
}

// nodeOf is the name of the node that has an address or the pod with it.
func nodeOf(a netip.Addr) string {
	for i := range 3 {
		if a == nodeAddr(i) || podCIDR(i).Contains(a) {
			return fmt.Sprint("node", i+1)
		}
	}
	return ""
}

// take replaces all Services and takes every node there, phase by phase.
func (w *world) take(yaml string) *model.Snapshot {
	w.t.Helper()
	w.changes++
	var objects file.Objects
	if err := objects.Parse("services.yaml", []byte(yaml)); err != nil {
		w.t.Fatalf("%v in:\n%s", err, yaml)
	}
	objects.Fill(w.builder)
	snapshot := w.builder.Current()
	for _, phase := range []func(*node, *model.Snapshot) error{
		func(n *node, s *model.Snapshot) error { return n.speaker.Withdraw(w.t.Context(), s) },
		func(n *node, s *model.Snapshot) error {
			failed, err := n.dataplane.Program(w.t.Context(), s)
			if err == nil && len(failed) > 0 {
				err = fmt.Errorf("not programmed: %v", failed)
			}
			return err
		},
		func(n *node, s *model.Snapshot) error {
			return n.speaker.Publish(w.t.Context(), s, func(model.ServiceName) bool { return false })
		},
		func(n *node, s *model.Snapshot) error { return n.dataplane.Reap(w.t.Context(), s) },
	} {
		for _, n := range w.nodes {
			if err := phase(n, snapshot.On(snapshot.NodeNamed(nodeOf(n.addr)))); err != nil {
				w.t.Fatalf("%s: %v", n.name, err)
			}
		}
	}
	return snapshot
}
