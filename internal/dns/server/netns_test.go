package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/nfnl"
)

// namespace makes a network namespace of the test's own, with lo up.
func namespace(t *testing.T) netns.NS {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	path := fmt.Sprintf("%s/dnstest-%d-%s", netns.Dir, os.Getpid(), strings.ToLower(t.Name()[4:12]))
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	ns := netns.At(path)
	in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return ns
}

func in(t *testing.T, ns netns.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// onLo lists the addresses of lo.
func onLo(t *testing.T, ns netns.NS) (out []string) {
	t.Helper()
	in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
		for _, a := range addrs {
			out = append(out, a.IPNet.String())
		}
		return err
	})
	return out
}

// run starts a server in a namespace and returns what ends it.
func run(t *testing.T, cfg Config) (stop func() error) {
	t.Helper()
	cfg.Table, cfg.Log = testTable(t, world()), discard
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	await(t, "the server to be ready", func() bool { ok, _ := s.Ready(); return ok })
	return func() error { cancel(); return <-done }
}

func TestAddressIsThereWhileTheServerRuns(t *testing.T) {
	ns := namespace(t)
	before := fmt.Sprint(onLo(t, ns))
	vip4, vip6 := netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10::a")
	stop := run(t, Config{Netns: ns, Addrs: []netip.Addr{vip4, vip6}, Sockets: 2})
	wantAnswers(t, ns, vip4)
	wantAnswers(t, ns, vip6)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if after := fmt.Sprint(onLo(t, ns)); after != before {
		t.Errorf("lo had %s before and has %s now", before, after)
	}
}

func TestAnAddressThatWasThereStays(t *testing.T) {
	ns := namespace(t)
	vip := netip.MustParseAddr("10.96.0.10")
	in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		theirs := hostAddr(vip)
		theirs.Label = ""
		return netlink.AddrAdd(lo, theirs)
	})
	if err := run(t, Config{Netns: ns, Addrs: []netip.Addr{vip}})(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(onLo(t, ns), " "); !strings.Contains(got, "10.96.0.10/32") {
		t.Errorf("an address that was there before is gone: %s", got)
	}
}

func TestAnAddressLeftByACrashIsTakenOver(t *testing.T) {
	ns := namespace(t)
	if _, err := addAddrs(ns, testZone.Addrs); err != nil { // and nobody removes it
		t.Fatal(err)
	}
	if err := run(t, Config{Netns: ns, Addrs: testZone.Addrs})(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(onLo(t, ns), " "); strings.Contains(got, "10.96.0.10") {
		t.Errorf("the address stayed: %s", got)
	}
}

// occupy has another program hold port 53, over one protocol or both.
func occupy(t *testing.T, ns netns.NS, at string, networks ...string) (free func()) {
	t.Helper()
	var held []io.Closer
	for _, network := range networks {
		var c io.Closer
		var err error
		if strings.HasPrefix(network, "udp") {
			c, err = ns.ListenPacket(t.Context(), network, at)
		} else {
			c, err = ns.Listen(t.Context(), network, at)
		}
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	return func() {
		for _, c := range held {
			c.Close()
		}
	}
}

// wantAnswers asks at port 53 of an address, from connected sockets: they take a reply from that port only. Just after
// an IPv6 address was added, one that is connected to it may reach nothing for good; the next one does.
func wantAnswers(t *testing.T, ns netns.NS, vip netip.Addr) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		await(t, fmt.Sprintf("an answer of %s over %s", vip, network), func() bool {
			conn, err := ns.DialContext(t.Context(), network, netip.AddrPortFrom(vip, 53).String())
			if err != nil {
				return false
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Second))
			c := &mdns.Conn{Conn: conn}
			if err := c.WriteMsg(web()); err != nil {
				return false
			}
			m, err := c.ReadMsg()
			return err == nil && len(m.Answer) == 1
		})
	}
}

// redirects counts the tables of redirects in a namespace.
func redirects(t *testing.T, ns netns.NS) (n int) {
	t.Helper()
	conn, err := nfnl.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		tables, err := conn.Tables(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			if table.Name == RedirectTable {
				n++
			}
		}
	}
	return n
}

func TestAPortThatAnotherProgramHasIsRedirected(t *testing.T) {
	ns := namespace(t)
	vip4, vip6 := netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10::a")
	for _, c := range []struct {
		at       string
		networks []string
		tables   int
	}{
		{"0.0.0.0:53", []string{"udp4"}, 1}, // the wildcard, as dnsmasq does
		{"0.0.0.0:53", []string{"tcp4"}, 1},
		{"[::]:53", []string{"udp", "tcp"}, 2},
	} {
		free := occupy(t, ns, c.at, c.networks...)
		stop := run(t, Config{Netns: ns, Addrs: []netip.Addr{vip4, vip6}, Sockets: 2})
		if got := redirects(t, ns); got != c.tables {
			t.Errorf("%s %v: tables of redirects in %d families, want %d", c.at, c.networks, got, c.tables)
		}
		wantAnswers(t, ns, vip4)
		wantAnswers(t, ns, vip6)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(onLo(t, ns), " "); redirects(t, ns) > 0 || strings.Contains(got, "10.96.0.10") {
			t.Errorf("%s: a redirect or the address stayed: %s", c.at, got)
		}
		free()
	}
}

func TestARedirectLeftByACrashGoesWhenThePortIsFree(t *testing.T) {
	ns := namespace(t)
	if err := setRedirects(ns, []redirect{{netip.MustParseAddr("10.96.0.10"), unix.IPPROTO_UDP, 53, 1}}); err != nil {
		t.Fatal(err)
	}
	stop := run(t, Config{Netns: ns, Addrs: testZone.Addrs})
	wantAnswers(t, ns, testZone.Addrs[0])
	if n := redirects(t, ns); n > 0 {
		t.Error("the redirect is there")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestATakenPortOfLoopbackIsSaidClearly(t *testing.T) {
	ns, at := namespace(t), netip.MustParseAddr("127.0.0.1")
	defer occupy(t, ns, "127.0.0.1:53", "udp")()
	s, err := New(Config{Netns: ns, Addrs: []netip.Addr{at}, Table: testTable(t, world()), Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, ErrPortTaken) || !strings.Contains(err.Error(), "127.0.0.1:53") {
		t.Errorf("got %v", err)
	}
}

// In one-machine mode the resolver of the host may listen on its loopback only; ours asks from there.
func TestUpstreamsAreAskedFromTheirNamespace(t *testing.T) {
	ns, host := namespace(t), netns.NS{}
	u := upstreamServer(t, answering("192.0.2.1", 60)) // on loopback of the test's own namespace
	vip := netip.MustParseAddr("10.96.0.10")
	stop := run(t, Config{Netns: ns, Addrs: []netip.Addr{vip}, Upstreams: []netip.AddrPort{u.addr}, UpstreamNetns: host})
	defer stop()
	var conn net.Conn
	in(t, ns, func() (err error) {
		conn, err = net.Dial("udp", "10.96.0.10:53")
		return err
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	c := &mdns.Conn{Conn: conn}
	if err := c.WriteMsg(question("www.example.com.", mdns.TypeA)); err != nil {
		t.Fatal(err)
	}
	m, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	wantA(t, m, "192.0.2.1")
}
