//go:build linux

package nodes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// The host's way out over IPv6, beside netnstest's over IPv4.
const hostAddr6, farAddr6 = "2001:db8:51::2", "2001:db8:51::1"

// dual gives an instance the default ranges of IPv6 too, and its host and internet addresses of it.
func dual(t testing.TB, w *netnstest.World, c Config) Config {
	t.Helper()
	netnstest.Run(t, w.Host, "ip", "address", "add", hostAddr6+"/64", "dev", netnstest.HostUplink, "nodad")
	netnstest.Run(t, w.Internet, "ip", "address", "add", farAddr6+"/64", "dev", farLink(t, w), "nodad")
	netnstest.Settle(t, w.Host)
	netnstest.Settle(t, w.Internet)
	c.Families = append(c.Families, Family{
		NodeCIDR: netip.MustParsePrefix("fd00:172:30::/64"), PodCIDR: netip.MustParsePrefix("fd00:10:244::/56"),
		ServiceCIDR: netip.MustParsePrefix("fd00:10:96::/112"), HostAddr: netip.MustParseAddr("fd00:172:30::1"),
	})
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Addrs = append(n.Addrs, netip.MustParseAddr(fmt.Sprintf("fd00:172:30::%d", 11+i)))
		n.PodCIDRs = append(n.PodCIDRs, netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", 1+i)))
	}
	return c
}

// farLink is the internet's link to the host: the one that has its address.
func farLink(t testing.TB, w *netnstest.World) string {
	t.Helper()
	fields := strings.Fields(netnstest.Run(t, w.Internet, "ip", "-oneline", "route", "get", netnstest.HostAddr))
	for i, f := range fields {
		if f == "dev" {
			return fields[i+1]
		}
	}
	t.Fatalf("no link in %v", fields)
	return ""
}

// attach6 attaches a pod and returns its IPv6 address too.
func attach6(t testing.TB, n *Network, node string) (pod, netip.Addr) {
	t.Helper()
	p := attach(t, n, node)
	r, err := n.Attach(t.Context(), AttachRequest{Node: node, Netns: p.Path(), ContainerID: p.id})
	if err != nil || len(r.Addrs) != 2 || r.Gateways[1] != gateway6 {
		t.Fatalf("got %+v, %v", r, err)
	}
	return p, r.Addrs[1].Addr()
}

func TestWhoIsSeenByWhomOverIPv6(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, dual(t, w, config(t, w, 2)))
	node1, node2 := nodeNetns(t, n, "node1"), nodeNetns(t, n, "192.168.0.12")
	addr := netip.MustParseAddr
	addr1, addr2, host := addr("fd00:172:30::11"), addr("fd00:172:30::12"), addr("fd00:172:30::1")
	a, a6 := attach6(t, n, "node1")
	b, b6 := attach6(t, n, "node1")
	c, c6 := attach6(t, n, "192.168.0.12")
	for _, tt := range []struct {
		what   string
		client netns.NS
		server netns.NS
		at     netip.Addr
		seen   netip.Addr
	}{
		{"a node by another", node1, node2, addr2, addr1},
		{"a node by its pod", node1, a.NS, a6, addr1},
		{"a node by another's pod", node1, c.NS, c6, addr1},
		{"a pod by its neighbour", a.NS, b.NS, b6, a6},
		{"a pod by a pod elsewhere", a.NS, c.NS, c6, a6},
		{"a pod by itself", a.NS, a.NS, a6, a6},
		{"a pod by its node", a.NS, node1, addr1, a6},
		{"a pod by another node", a.NS, node2, addr2, a6},
		{"a pod by the host", a.NS, w.Host, host, addr1},
		{"the host by a node", w.Host, node2, addr2, host},
		{"a node by the internet", node2, w.Internet, addr(farAddr6), addr(hostAddr6)},
		{"a pod by the internet", c.NS, w.Internet, addr(farAddr6), addr(hostAddr6)},
		{"a pod by a pod elsewhere, over IPv4", a.NS, c.NS, c.addr, a.addr},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if seen := seenBy(t, tt.server, tt.at, tt.client); seen != tt.seen {
				t.Errorf("seen as %s, want %s", seen, tt.seen)
			}
		})
	}
}

func TestADualStackNetworkThatIsUpIsLeftAlone(t *testing.T) {
	w := netnstest.New(t)
	c := dual(t, w, config(t, w, 2))
	n := up(t, c)
	p, p6 := attach6(t, n, "node1")
	n.Close()
	dump := func() string {
		return netnstest.Dump(t, w.Host) + netnstest.Dump(t, nodeNetns(t, n, "node1")) + netnstest.Dump(t, p.NS)
	}
	for _, ns := range []netns.NS{w.Host, nodeNetns(t, n, "node1"), p.NS} {
		netnstest.Settle(t, ns)
	}
	before := dump()
	again := up(t, c)
	if d := netnstest.Diff(before, dump()); d != "" {
		t.Errorf("the second Up has changed:\n%s", d)
	}
	if _, next := attach6(t, again, "node1"); next != p6.Next() {
		t.Errorf("the next pod got %s after %s", next, p6)
	}
}

func TestADualStackNodeThatLostItsAddressesIsRepaired(t *testing.T) {
	w := netnstest.New(t)
	c := dual(t, w, config(t, w, 1))
	n := up(t, c)
	p, p6 := attach6(t, n, "node1")
	node := nodeNetns(t, n, "node1")
	netnstest.Run(t, node, "ip", "address", "flush", "dev", "eth0")
	netnstest.Run(t, node, "ip", "-6", "route", "flush", "table", "main")
	n.Close()
	again := up(t, c)
	if seen := seenBy(t, p.NS, p6, nodeNetns(t, again, "node1")); seen != c.Nodes[0].Addrs[1] {
		t.Errorf("seen as %s", seen)
	}
}

func TestDeletePutsADualStackHostBack(t *testing.T) {
	for what, prepare := range map[string][]string{
		"plain":                       {"true"},
		"forwarding on":               {"sysctl", "net.ipv6.conf.all.forwarding=1"},
		"one link forwards":           {"sysctl", "net.ipv6.conf.wan0.forwarding=1"},
		"with ip6tables":              {"ip6tables", "-P", "FORWARD", "DROP"},
		"routes come by announcement": {"sysctl", "net.ipv6.conf.wan0.accept_ra=1"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := netnstest.New(t)
			c := dual(t, w, config(t, w, 2))
			netnstest.Run(t, w.Host, prepare...)
			before := netnstest.Dump(t, w.Host)
			n := up(t, c)
			attach(t, n, "node1")
			n.Close()
			deleteNow(t, c)
			expectNothing(t, w, c, before)
		})
	}
}

// A host that forwards ignores router advertisements, unless told to go on (accept_ra in the kernel's ip-sysctl).
func TestAHostKeepsTheRoutesThatItIsTold(t *testing.T) {
	w := netnstest.New(t)
	c := dual(t, w, config(t, w, 1))
	up(t, c)
	for name, want := range map[string]string{"wan0": "2", HostLink(c.Name): "0"} {
		if got := strings.TrimSpace(netnstest.Run(t, w.Host, "cat", "/proc/sys/net/ipv6/conf/"+name+"/accept_ra")); got != want {
			t.Errorf("accept_ra of %s is %s, want %s", name, got, want)
		}
	}
}

func TestOneFamilyTwiceIsRefused(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	c.Families = append(c.Families, c.Families[0])
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "each IP family once") {
		t.Errorf("got %v", err)
	}
}
