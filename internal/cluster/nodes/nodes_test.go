//go:build linux

package nodes

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// config is an instance of n nodes in a world's host.
func config(t testing.TB, w *netnstest.World, n int) Config {
	return ranges(Config{Name: netnstest.Name("i"), StateDir: t.TempDir(), HostNetns: w.Host}, n)
}

// ranges gives an instance the default ranges and n nodes. One has an address for its name, as in walkthrough C.
func ranges(c Config, n int) Config {
	c.HostPorts = []uint16{6443}
	c.Families = []Family{{
		NodeCIDR:    netip.MustParsePrefix("172.30.0.0/24"),
		PodCIDR:     netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"),
		HostAddr:    netip.MustParseAddr("172.30.0.1"),
	}}
	for i := range n {
		c.Nodes = append(c.Nodes, Node{
			Name:     []string{"node1", "192.168.0.12", "node3"}[i],
			Addrs:    []netip.Addr{netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", 11+i))},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", 1+i))},
		})
	}
	return c
}

// up brings an instance up until the test ends.
func up(t testing.TB, c Config) *Network {
	t.Helper()
	n, err := Up(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		if err := Delete(context.Background(), c); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pod is a bare namespace attached to a node.
type pod struct {
	netns.NS
	id   string
	addr netip.Addr
}

func attach(t testing.TB, n *Network, node string) pod {
	t.Helper()
	p := pod{NS: netnstest.Namespace(t, "pod"), id: netnstest.Name("container")}
	r, err := n.Attach(context.Background(), AttachRequest{Node: node, Netns: p.Path(), ContainerID: p.id})
	if err != nil {
		t.Fatal(err)
	}
	p.addr = r.Addrs[0].Addr()
	return p
}

func nodeNetns(t testing.TB, n *Network, node string) netns.NS {
	t.Helper()
	ns, err := n.Netns(node)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// seenBy asks a TCP and a UDP server in one namespace from another, and returns the client's address as both saw it.
func seenBy(t testing.TB, server netns.NS, at netip.Addr, client netns.NS) netip.Addr {
	t.Helper()
	address := netip.AddrPortFrom(at, 0).String()
	tcp := netnstest.MustAsk(t, client, "tcp", netnstest.ServeTCP(t, server, "s", address).Addr.String())
	udp := netnstest.MustAsk(t, client, "udp", netnstest.ServeUDP(t, server, "s", address).Addr.String())
	if tcp.Peer != udp.Peer {
		t.Errorf("TCP server saw %s, UDP server %s", tcp.Peer, udp.Peer)
	}
	return tcp.Peer
}

func TestWhoIsSeenByWhom(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 2))
	node1, node2 := nodeNetns(t, n, "node1"), nodeNetns(t, n, "192.168.0.12")
	addr1, addr2, host := netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("172.30.0.12"), netip.MustParseAddr("172.30.0.1")
	far := netip.MustParseAddr(netnstest.FarAddr)
	a, b, c := attach(t, n, "node1"), attach(t, n, "node1"), attach(t, n, "192.168.0.12")
	for _, tt := range []struct {
		what   string
		client netns.NS
		server netns.NS
		at     netip.Addr
		seen   netip.Addr
	}{
		{"a node by another", node1, node2, addr2, addr1},
		{"a node by its pod", node1, a.NS, a.addr, addr1},
		{"a node by another's pod", node1, c.NS, c.addr, addr1},
		{"a pod by its neighbour", a.NS, b.NS, b.addr, a.addr},
		{"a pod by a pod elsewhere", a.NS, c.NS, c.addr, a.addr},
		{"a pod by itself", a.NS, a.NS, a.addr, a.addr},
		{"a pod by its node", a.NS, node1, addr1, a.addr},
		{"a pod by another node", a.NS, node2, addr2, a.addr},
		{"a pod by the host", a.NS, w.Host, host, addr1},
		{"a node by the host", node2, w.Host, host, addr2},
		{"the host by a node", w.Host, node2, addr2, host},
		{"a node by the internet", node2, w.Internet, far, netip.MustParseAddr(netnstest.HostAddr)},
		{"a pod by the internet", c.NS, w.Internet, far, netip.MustParseAddr(netnstest.HostAddr)},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if seen := seenBy(t, tt.server, tt.at, tt.client); seen != tt.seen {
				t.Errorf("seen as %s, want %s", seen, tt.seen)
			}
		})
	}
}
