//go:build linux

package stress

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/feed"
)

// world is a node with pods, and a machine outside that has another node's pods as well.
type world struct {
	t             *testing.T
	node, outside netns.NS
	pods          map[string]netns.NS
	api           *feed.Server
	apiAddr       string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: netnstest.Namespace(t, "node"), outside: netnstest.Namespace(t, "outside"), pods: map[string]netns.NS{}, api: feed.New()}
	netnstest.Link(t, w.node, "eth0", nodeAddr+"/24", w.outside, "eth0", outsideAddr+"/24")
	w.run(w.node, "sysctl -qw net.ipv4.ip_forward=1", "ip route add default via "+outsideAddr)
	w.run(w.outside, "ip route add default via "+nodeAddr, "ip route add 172.30.0.200/29 via "+nodeAddr)
	for _, a := range there {
		w.run(w.outside, "ip address add "+a+"/32 dev lo")
		w.serve(w.outside, a)
	}
	for i, a := range here {
		dev := fmt.Sprint("pod", i)
		w.pods[a] = netnstest.Namespace(t, dev)
		netnstest.Link(t, w.node, dev, nodeAddr+"/32", w.pods[a], "eth0", a+"/32")
		w.run(w.pods[a], "ip route add "+nodeAddr+" dev eth0", "ip route add default via "+nodeAddr)
		w.run(w.node, "ip route add "+a+" dev "+dev)
		w.serve(w.pods[a], a)
	}
	l, err := w.node.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.apiAddr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.api.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-served })
	return w
}

func (w *world) run(ns netns.NS, lines ...string) {
	w.t.Helper()
	for _, l := range lines {
		netnstest.Run(w.t, ns, strings.Fields(l)...)
	}
}

func (w *world) serve(ns netns.NS, addr string) {
	netnstest.ServeTCP(w.t, ns, addr, addr+":8080")
	netnstest.ServeUDP(w.t, ns, addr, addr+":8080")
}

var serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}

// look reads what the kernel of a namespace has, as a process does that starts.
func (w *world) look(ns netns.NS) *kernel.Applier {
	w.t.Helper()
	a, err := kernel.Open(kernel.Config{Netns: ns, ServiceCIDRs: serviceCIDRs})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { a.Close() })
	return a
}
