package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"minato/internal/netns"
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
	for _, vip := range []netip.Addr{vip4, vip6} {
		for _, network := range []string{"udp", "tcp"} {
			conn, err := ns.DialContext(t.Context(), network, netip.AddrPortFrom(vip, 53).String())
			if err != nil {
				t.Fatal(err)
			}
			c := &mdns.Conn{Conn: conn}                                                  // a connected socket takes a reply from this address only
			await(t, fmt.Sprintf("an answer of %s over %s", vip, network), func() bool { // the kernel may drop the first packet to a new IPv6 address
				conn.SetDeadline(time.Now().Add(time.Second))
				if err := c.WriteMsg(web()); err != nil {
					return false
				}
				m, err := c.ReadMsg()
				return err == nil && len(m.Answer) == 1
			})
			conn.Close()
		}
	}
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

func TestTakenPortIsSaidClearly(t *testing.T) {
	ns := namespace(t)
	for _, network := range []string{"udp", "tcp"} {
		var other interface{ Close() error }
		var err error
		if network == "udp" { // the wildcard, as dnsmasq does
			other, err = ns.ListenPacket(t.Context(), "udp", "0.0.0.0:53")
		} else {
			other, err = ns.Listen(t.Context(), "tcp", "0.0.0.0:53")
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{Netns: ns, Addrs: testZone.Addrs, Table: testTable(t, world()), Log: discard})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(t.Context())
		if !errors.Is(err, ErrPortTaken) || !strings.Contains(err.Error(), "10.96.0.10:53") {
			t.Errorf("%s: got %v", network, err)
		}
		if got := strings.Join(onLo(t, ns), " "); strings.Contains(got, "10.96.0.10") {
			t.Errorf("the address stayed: %s", got)
		}
		other.Close()
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
