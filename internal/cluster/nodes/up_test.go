//go:build linux

package nodes

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

func deleteNow(t testing.TB, c Config) {
	t.Helper()
	if err := Delete(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}

// expectNothing compares the host with a dump made before, and looks for namespaces and a journal.
func expectNothing(t testing.TB, w *netnstest.World, c Config, before string) {
	t.Helper()
	if d := netnstest.Diff(before, netnstest.Dump(t, w.Host)); d != "" {
		t.Errorf("the host before and after:\n%s", d)
	}
	left, _ := filepath.Glob(NetnsPath(c.Name, "*"))
	if state, _ := os.ReadDir(c.StateDir); len(left)+len(state) > 0 {
		t.Errorf("left behind: %s %s", left, state)
	}
}

func TestDeletePutsTheHostBack(t *testing.T) {
	for what, prepare := range map[string][][]string{
		"plain":                   {},
		"forwarding on":           {{"sysctl", "net.ipv4.ip_forward=1"}},
		"odd forwarding":          {{"sysctl", "net.ipv4.conf.wan0.forwarding=1", "net.ipv4.conf.all.accept_redirects=0"}},
		"with Docker's chains":    {{"iptables", "-P", "FORWARD", "DROP"}, {"iptables", "-N", "DOCKER-USER"}, {"iptables", "-A", "FORWARD", "-j", "DOCKER-USER"}},
		"with a firewall":         {{"iptables", "-P", "FORWARD", "DROP"}, {"iptables", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"}, {"iptables", "-P", "INPUT", "DROP"}},
		"with an unreachable LAN": {{"ip", "route", "add", "unreachable", "10.0.0.0/8"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := netnstest.New(t)
			for _, argv := range prepare {
				netnstest.Run(t, w.Host, argv...)
			}
			before := netnstest.Dump(t, w.Host)
			c := config(t, w, 2)
			n := up(t, c)
			attach(t, n, "node1")
			n.Close()
			if before == netnstest.Dump(t, w.Host) {
				t.Error("the dump does not show what Up did")
			}
			deleteNow(t, c)
			expectNothing(t, w, c, before)
		})
	}
}

func TestDeleteWithoutTheJournalFindsWhatCarriesAMark(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Run(t, w.Host, "sysctl", "net.ipv4.ip_forward=1") // its former value is what only the journal knows
	before := netnstest.Dump(t, w.Host)
	c := config(t, w, 2)
	up(t, c).Close()
	if err := os.RemoveAll(c.StateDir); err != nil {
		t.Fatal(err)
	}
	deleteNow(t, c)
	expectNothing(t, w, c, before)
}

func TestDeleteOfNothingIsNoError(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	c.StateDir = filepath.Join(c.StateDir, "never made")
	deleteNow(t, c)
}

func TestDeleteLeavesOtherInstancesAlone(t *testing.T) {
	w := netnstest.New(t)
	a, b := config(t, w, 1), config(t, w, 1)
	b.Name = a.Name + "-b" // the names of b's namespaces begin like those of a
	b.Families[0].NodeCIDR = netip.MustParsePrefix("172.31.0.0/24")
	b.Families[0].HostAddr = netip.MustParseAddr("172.31.0.1")
	b.Nodes[0].Addrs = []netip.Addr{netip.MustParseAddr("172.31.0.11")}
	before := netnstest.Dump(t, w.Host)
	up(t, a).Close()
	n := up(t, b)
	deleteNow(t, a)
	far := netip.MustParseAddr(netnstest.FarAddr)
	if seen := seenBy(t, w.Internet, far, attach(t, n, "node1").NS); seen.String() != netnstest.HostAddr {
		t.Errorf("seen as %s", seen)
	}
	n.Close()
	deleteNow(t, b)
	expectNothing(t, w, b, before)
}

func TestASecondUpChangesNothing(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 2)
	n := up(t, c)
	p := attach(t, n, "node1")
	spaces := []netns.NS{w.Host, netns.At(NetnsPath(c.Name, lanName)), nodeNetns(t, n, "node1"), nodeNetns(t, n, "192.168.0.12"), p.NS}
	var before []string
	for _, ns := range spaces {
		before = append(before, netnstest.Dump(t, ns))
	}
	n.Close()
	up(t, c)
	for i, ns := range spaces {
		if d := netnstest.Diff(before[i], netnstest.Dump(t, ns)); d != "" {
			t.Errorf("%s:\n%s", ns, d)
		}
	}
}

func TestUpRepairs(t *testing.T) {
	for what, break_ := range map[string]func(t *testing.T, w *netnstest.World, c Config){
		"a node's namespace unmounted": func(t *testing.T, w *netnstest.World, c Config) {
			if err := netns.Delete(NetnsPath(c.Name, "192.168.0.12")); err != nil {
				t.Fatal(err)
			}
		},
		"the bridge's namespace unmounted": func(t *testing.T, w *netnstest.World, c Config) {
			if err := netns.Delete(NetnsPath(c.Name, lanName)); err != nil {
				t.Fatal(err)
			}
		},
		"the bridge deleted":       inNetns(lanName, "ip", "link", "delete", bridgeLink),
		"a port deleted":           inNetns(lanName, "ip", "link", "delete", bridgePort("node1")),
		"a port out of the bridge": inNetns(lanName, "ip", "link", "set", bridgePort("node1"), "nomaster"),
		"a port down":              inNetns(lanName, "ip", "link", "set", bridgePort("192.168.0.12"), "down"),
		"a node's link down":       inNetns("node1", "ip", "link", "set", uplink, "down"),
		"a node's address gone":    inNetns("node1", "ip", "address", "flush", "dev", uplink),
		"a node's address wrong":   inNetns("node1", "ip", "address", "add", "172.30.0.77/24", "dev", uplink),
		"a node's routes gone":     inNetns("192.168.0.12", "ip", "route", "flush", "proto", "77"),
		"a node's lo down":         inNetns("node1", "ip", "link", "set", "lo", "down"),
		"a node's rules gone":      inNetns("node1", "nft", "flush", "ruleset"),
		"a node does not forward":  inNetns("192.168.0.12", "sysctl", "net.ipv4.ip_forward=0"),
		"the host's link deleted":  func(t *testing.T, w *netnstest.World, c Config) { run(t, w, "ip", "link", "delete", HostLink(c.Name)) },
		"the host's link down": func(t *testing.T, w *netnstest.World, c Config) {
			run(t, w, "ip", "link", "set", HostLink(c.Name), "down")
		},
		"the host's rules gone":  func(t *testing.T, w *netnstest.World, c Config) { run(t, w, "nft", "flush", "ruleset") },
		"the host's routes gone": func(t *testing.T, w *netnstest.World, c Config) { run(t, w, "ip", "route", "flush", "proto", "77") },
		"the host does not forward": func(t *testing.T, w *netnstest.World, c Config) {
			run(t, w, "sysctl", "net.ipv4.ip_forward=0")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := netnstest.New(t)
			before := netnstest.Dump(t, w.Host)
			c := config(t, w, 2)
			n := up(t, c)
			p := attach(t, n, "node1")
			n.Close()
			break_(t, w, c)
			n = up(t, c)
			far := netip.MustParseAddr(netnstest.FarAddr)
			q := attach(t, n, "192.168.0.12")
			if seen := seenBy(t, q.NS, q.addr, p.NS); seen != p.addr {
				t.Errorf("pod to pod: seen as %s, want %s", seen, p.addr)
			}
			if seen := seenBy(t, w.Internet, far, p.NS); seen.String() != netnstest.HostAddr {
				t.Errorf("pod to internet: seen as %s, want %s", seen, netnstest.HostAddr)
			}
			expectUnreachable(t, w.Host, "10.96.0.1:80")
			n.Close()
			deleteNow(t, c)
			expectNothing(t, w, c, before)
		})
	}
}

func run(t *testing.T, w *netnstest.World, argv ...string) { netnstest.Run(t, w.Host, argv...) }

func inNetns(name string, argv ...string) func(*testing.T, *netnstest.World, Config) {
	return func(t *testing.T, w *netnstest.World, c Config) {
		netnstest.Run(t, netns.At(NetnsPath(c.Name, name)), argv...)
	}
}

// expectUnreachable expects an error at once, not after a timeout.
func expectUnreachable(t testing.TB, from netns.NS, address string) {
	t.Helper()
	start := time.Now()
	_, err := netnstest.Ask(from, "tcp", address)
	if err == nil || time.Since(start) > netnstest.Wait/2 {
		t.Errorf("%s from %s: %v after %s, want a refusal at once", address, from, err, time.Since(start))
	}
}

func TestPodAndServiceRangesEndAtTheHost(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	p := attach(t, n, "node1")
	for _, from := range []netns.NS{w.Host, nodeNetns(t, n, "node1"), p.NS} {
		expectUnreachable(t, from, "10.96.0.1:80")
		expectUnreachable(t, from, "10.244.9.9:80")
	}
	netnstest.Run(t, w.Internet, "ip", "route", "add", "10.244.0.0/16", "via", netnstest.HostAddr)
	expectUnreachable(t, w.Internet, netnstest.ServeTCP(t, p.NS, "pod", p.addr.String()+":0").Addr.String())
}

func TestUpRemovesNodesThatAreNotWantedAnyMore(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 2)
	up(t, c).Close()
	c.Nodes = c.Nodes[:1]
	up(t, c)
	if _, err := os.Stat(NetnsPath(c.Name, "192.168.0.12")); !os.IsNotExist(err) {
		t.Errorf("the second node is still there: %v", err)
	}
}

func TestUpTakesNoNamespaceThatIsNotItsOwn(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	path := NetnsPath(c.Name, "node1")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	defer netns.Delete(path)
	expectRefusal(t, c, "remove network namespace "+filepath.Base(path)+" or choose another --name")
	deleteNow(t, c)
	if !isNetns(path) {
		t.Error("Delete took it")
	}
}

func TestUpTakesNoLinkThatIsNotItsOwn(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 1)
	netnstest.Run(t, w.Host, "ip", "link", "add", HostLink(c.Name), "type", "veth", "peer", "name", "other")
	expectRefusal(t, c, "remove link "+HostLink(c.Name)+" or choose another --name")
	deleteNow(t, c)
	netnstest.Run(t, w.Host, "ip", "link", "show", HostLink(c.Name))
}

// expectRefusal expects Up to refuse a Config with words for the user.
func expectRefusal(t testing.TB, c Config, words string) {
	t.Helper()
	n, err := Up(context.Background(), c)
	if err == nil {
		n.Close()
	}
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want %q", err, words)
	}
}
