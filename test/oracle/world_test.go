//go:build linux

package oracle

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/oracle/upstream"
)

// world is a node in the middle, and around it a namespace for every address that a test sends from or to.
type world struct {
	t            testing.TB
	node, beyond netns.NS // beyond has every address that is nobody's
	hosts        map[netip.Addr]netns.NS
	links        int
	servers      map[string]bool
}

// alone is what servers are named that are reached when nobody translates the destination.
const alone = "alone"

func newWorld(t testing.TB) *world {
	w := &world{t: t, node: netnstest.Namespace(t, "node"), hosts: map[netip.Addr]netns.NS{}, servers: map[string]bool{}}
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
		"net.ipv4.conf.default.rp_filter=0"} {
		netnstest.Run(t, w.node, "sysctl", "-qw", s)
	}
	for _, a := range nodeAddrs {
		w.address(w.node, a, "lo")
	}
	w.beyond = w.attach("beyond")
	w.run(w.node, "ip", "route", "add", "default", "via", "169.254.7.7", "dev", "beyond", "onlink", "src", nodeAddr(false))
	w.run(w.beyond, "ip", "address", "add", "169.254.7.7/32", "dev", "eth0")
	w.run(w.node, "ip", "-6", "route", "add", "default", "via", "fe80::7", "dev", "beyond", "src", nodeAddr(true))
	w.run(w.beyond, "ip", "-6", "address", "add", "fe80::7/64", "dev", "eth0", "nodad")
	return w
}

func nodeAddr(ipv6 bool) string {
	i := slices.IndexFunc(nodeAddrs, func(a netip.Addr) bool { return a.Is6() == ipv6 })
	return nodeAddrs[i].String()
}

func (w *world) run(ns netns.NS, argv ...string) {
	w.t.Helper()
	netnstest.Run(w.t, ns, argv...)
}

// address gives a link an address that can be used at once.
func (w *world) address(ns netns.NS, a netip.Addr, dev string) {
	w.t.Helper()
	argv := []string{"ip", "address", "add", netip.PrefixFrom(a, a.BitLen()).String(), "dev", dev}
	if a.Is6() {
		argv = append(argv, "nodad")
	}
	w.run(ns, argv...)
}

// attach makes a namespace behind a link of the node. The node's end has the node's own address, for "masquerade" of
// netfilter takes the address of the link.
func (w *world) attach(dev string) netns.NS {
	ns := netnstest.Namespace(w.t, dev)
	netnstest.Link(w.t, w.node, dev, nodeAddr(false)+"/32", ns, "eth0", "")
	w.run(w.node, "ip", "-6", "address", "add", nodeAddr(true)+"/128", "dev", dev, "nodad")
	w.run(w.node, "ip", "-6", "address", "add", "fe80::1/64", "dev", dev, "nodad")
	w.run(ns, "ip", "route", "add", nodeAddr(false), "dev", "eth0")
	w.run(ns, "ip", "route", "add", "default", "via", nodeAddr(false))
	w.run(ns, "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
	return ns
}

// host is the namespace in which an address is at home.
func (w *world) host(a netip.Addr) netns.NS {
	if slices.Contains(nodeAddrs, a) || a.IsLoopback() {
		return w.node
	}
	if ns, ok := w.hosts[a]; ok {
		return ns
	}
	w.links++
	dev := fmt.Sprintf("h%d", w.links)
	ns := w.attach(dev)
	w.address(ns, a, "eth0")
	w.run(w.node, "ip", "route", "add", a.String(), "dev", dev, "src", nodeAddr(a.Is6()))
	w.hosts[a] = ns
	return ns
}

// serve starts a server, once.
func (w *world) serve(ns netns.NS, name, network, at string) {
	if w.servers[network+at] {
		return
	}
	w.servers[network+at] = true
	if network == "udp" {
		netnstest.ServeUDP(w.t, ns, name, at)
	} else {
		netnstest.ServeTCP(w.t, ns, name, at)
	}
}

// furnish makes everything that the packets of a block come from and go to. Where a packet would go untranslated
// there is a server too, so that to be left alone is not the same as to be refused.
func (w *world) furnish(t testing.TB, b upstream.Block) {
	for _, f := range b.Flows {
		if f.Source == f.Dest {
			w.atNode(t, netip.MustParseAddr(f.Dest))
		}
	}
	for _, s := range b.Slices {
		for _, e := range s.Endpoints {
			for _, p := range s.Ports {
				a := netip.MustParseAddr(e.Addresses[0])
				at := netip.AddrPortFrom(a, uint16(*p.Port)).String()
				if p.Protocol != nil && *p.Protocol != "SCTP" {
					w.serve(w.host(a), at, strings.ToLower(string(*p.Protocol)), at)
				}
			}
		}
	}
	for _, f := range b.Flows {
		if protocol(f) == model.SCTP {
			continue
		}
		w.host(netip.MustParseAddr(f.Source))
		dst := netip.MustParseAddr(f.Dest)
		at := netip.AddrPortFrom(dst, uint16(f.Port)).String()
		ns := w.beyond
		if h := w.hosts[dst]; h != (netns.NS{}) || slices.Contains(nodeAddrs, dst) || dst.IsLoopback() {
			ns = w.host(dst)
		} else if !w.servers[dst.String()] {
			w.servers[dst.String()] = true
			w.address(w.beyond, dst, "lo")
		}
		w.serve(ns, alone, protocol(f).String(), at)
	}
}

// atNode gives the node an address that it does not know as its own, as some load balancers do, for one test.
func (w *world) atNode(t testing.TB, a netip.Addr) {
	if _, there := w.hosts[a]; there || slices.Contains(nodeAddrs, a) || a.IsLoopback() {
		return
	}
	w.address(w.node, a, "lo")
	w.hosts[a] = w.node
	t.Cleanup(func() {
		delete(w.hosts, a)
		w.run(w.node, "ip", "address", "del", netip.PrefixFrom(a, a.BitLen()).String(), "dev", "lo")
	})
}

// forget deletes all flows that the node's conntrack knows.
func (w *world) forget() {
	err := w.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		w.t.Fatal(err)
	}
}

// sent opens connections until no endpoint can have been missed: the chance that one of n+1 is, is below 1 in a million.
func (w *world) sent(f upstream.Flow) outcome {
	ns := w.host(netip.MustParseAddr(f.Source))
	to := netip.AddrPortFrom(netip.MustParseAddr(f.Dest), uint16(f.Port)).String()
	seen := map[string]bool{}
	direct, masq, lost := 0, 0, 0
	for i := 0; i < 16*(len(seen)+1); i++ {
		a, err := netnstest.Ask(ns, protocol(f).String(), to)
		switch {
		case silent(err) && i == 0:
			return outcome{output: "DROP"}
		case silent(err) && lost < 3:
			lost++
			continue
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPERM):
			return outcome{output: "REJECT"}
		case err != nil:
			return outcome{output: err.Error()}
		case a.Name == alone:
			return outcome{}
		}
		seen[a.Name] = true
		if slices.Contains(nodeAddrs, a.Peer) {
			masq++
		} else {
			direct++
		}
	}
	if direct > 0 && masq > 0 {
		return outcome{output: "sometimes from the node's address"}
	}
	var eps []netip.AddrPort
	for s := range seen {
		eps = append(eps, netip.MustParseAddrPort(s))
	}
	return forwarded(eps, masq > 0)
}

func silent(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
