//go:build linux

package nodes

import (
	"errors"
	"net/netip"
	"testing"

	"minato/internal/netns/netnstest"
)

// hostConfig is an instance whose one node is the world's host.
func hostConfig(t *testing.T, w *netnstest.World) Config {
	c := config(t, w, 1)
	c.Nodes[0].Host = true
	c.Nodes[0].Addrs[0] = netip.MustParseAddr(netnstest.HostAddr)
	c.Families[0].NodeCIDR = netip.MustParsePrefix("198.51.100.0/24")
	c.Families[0].HostAddr = netip.Addr{}
	return c
}

func TestAHostNodeIsTheHostItself(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Run(t, w.Host, "iptables", "-P", "FORWARD", "DROP")
	before := netnstest.Dump(t, w.Host)
	c := hostConfig(t, w)
	n := up(t, c)
	if ns := nodeNetns(t, n, "node1"); ns != w.Host {
		t.Errorf("the node is in %s", ns)
	}
	host, far := netip.MustParseAddr(netnstest.HostAddr), netip.MustParseAddr(netnstest.FarAddr)
	a, b := attach(t, n, "node1"), attach(t, n, "node1")
	if seen := seenBy(t, a.NS, a.addr, w.Host); seen != host {
		t.Errorf("the node by its pod: %s", seen)
	}
	if seen := seenBy(t, b.NS, b.addr, a.NS); seen != a.addr {
		t.Errorf("a pod by its neighbour: %s", seen)
	}
	if seen := seenBy(t, w.Host, host, a.NS); seen != a.addr {
		t.Errorf("a pod by its node: %s", seen)
	}
	if seen := seenBy(t, w.Internet, far, a.NS); seen != host {
		t.Errorf("a pod by the internet: %s", seen)
	}
	n.Close()
	n = up(t, c)
	if seen := seenBy(t, a.NS, a.addr, w.Host); seen != host {
		t.Errorf("after a second Up, the node by its pod: %s", seen)
	}
	n.Close()
	deleteNow(t, c)
	expectNothing(t, w, c, before)
}

func TestAHostNodeConnectsToServicesWithoutAnyOtherRoute(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Run(t, w.Host, "ip", "route", "delete", "default")
	c := hostConfig(t, w)
	n := up(t, c)
	p := attach(t, n, "node1")
	s := netnstest.ServeTCP(t, p.NS, "s", p.addr.String()+":0")
	netnstest.Run(t, w.Host, "nft", `add table ip t; add chain ip t out { type nat hook output priority -100; };
		add rule ip t out ip daddr 10.96.0.7 tcp dport 80 dnat to `+s.Addr.String())
	if a := netnstest.MustAsk(t, w.Host, "tcp", "10.96.0.7:80"); a.Peer.String() != netnstest.HostAddr {
		t.Errorf("seen as %s", a.Peer)
	}
}

func TestWhatIsNoServiceLeavesNoHostNode(t *testing.T) {
	w := netnstest.New(t)
	c := hostConfig(t, w)
	n := up(t, c)
	p := attach(t, n, "node1")
	netnstest.Run(t, w.Internet, "ip", "address", "add", "10.96.0.9/32", "dev", "lo")
	s := netnstest.ServeTCP(t, w.Internet, "leak", "10.96.0.9:0")
	if a, err := netnstest.Ask(p.NS, "tcp", s.Addr.String()); err == nil {
		t.Errorf("a pod got %v", a)
	}
	if a, err := netnstest.Ask(w.Host, "tcp", s.Addr.String()); err == nil {
		t.Errorf("the node got %v", a)
	}
}

func TestAHostNodeNeedsAnAddressOfTheHost(t *testing.T) {
	w := netnstest.New(t)
	c := hostConfig(t, w)
	c.Nodes[0].Addrs[0] = netip.MustParseAddr("198.51.100.77")
	_, err := Up(t.Context(), c)
	if want := "choose an address of this machine for node node1: it does not have 198.51.100.77"; !errors.Is(err, ErrConfig) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
