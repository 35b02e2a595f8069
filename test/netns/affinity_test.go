//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// visitors are machines behind the one outside. Each has an address of its own, and so an affinity.
type visitors struct {
	w     *world
	addrs []netip.Addr
}

func (w *world) visitors(n int) visitors {
	v := visitors{w: w}
	for i := range n {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})
		w.run(w.outside, "ip address add "+a.String()+"/32 dev lo")
		v.addrs = append(v.addrs, a)
	}
	return v
}

// visit has every visitor connect once, and returns who answered each.
func (v visitors) visit(to string) (names []string) {
	v.w.t.Helper()
	for _, a := range v.addrs {
		name, err := visit(v.w.outside, a, to)
		if err != nil {
			v.w.t.Fatalf("from %s: %v", a, err)
		}
		names = append(names, name)
	}
	return names
}

func visit(from netns.NS, source netip.Addr, to string) (name string, err error) {
	err = from.Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)), Timeout: netnstest.Wait}
		c, err := d.DialContext(context.Background(), "tcp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(netnstest.Wait))
		_, err = fmt.Fscan(c, &name)
		return err
	})
	return name, err
}

// expectSame fails when one of the visitors is answered by another endpoint than before.
func (v visitors) expectSame(to string, before []string) {
	v.w.t.Helper()
	if now := v.visit(to); fmt.Sprint(now) != fmt.Sprint(before) {
		v.w.t.Errorf("%s: answered by %v after %v", to, now, before)
	}
}

// remembered is the number of clients that the kernel remembers.
func (w *world) remembered() int {
	w.t.Helper()
	return strings.Count(netnstest.Run(w.t, w.node, "nft", "list", "map", "ip", "minato", "aff"), "expires")
}

var threePods = []string{"10.244.1.2", "10.244.1.3", "10.244.1.4"}

func sticky(timeout time.Duration) func(*model.Service) {
	return func(s *model.Service) { s.SessionAffinity = timeout }
}

func TestAffinityIsSwitchedOnAndOffLive(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	v := w.visitors(12)
	at := nodeAddr + ":30001"
	w.apply(w.service("web", 1, nil, threePods...))
	spread := func(when string) {
		t.Helper()
		if first := v.visit(at); fmt.Sprint(first) == fmt.Sprint(v.visit(at)) { // 1 in 3^12
			t.Errorf("%s: everyone is answered by the same endpoint twice: %v", when, first)
		}
	}
	spread("before")
	w.apply(w.service("web", 1, sticky(time.Hour), threePods...))
	first := v.visit(at)
	v.expectSame(at, first)
	w.apply(w.service("web", 1, sticky(2*time.Hour), threePods...))
	v.expectSame(at, first) // another timeout is no new choice
	w.apply(w.service("web", 1, nil, threePods...))
	spread("after")
}

func TestAffinityLastsFromTheLastConnection(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	v := w.visitors(8)
	at := nodeAddr + ":30001"
	const timeout = 4 * time.Second
	w.apply(w.service("web", 1, sticky(timeout), threePods...))
	first := v.visit(at)
	for start := time.Now(); time.Since(start) < timeout+timeout/2; {
		time.Sleep(timeout / 8)
		v.expectSame(at, first)
	}
	if n := w.remembered(); n != len(v.addrs) {
		t.Errorf("%d clients are remembered, want %d", n, len(v.addrs))
	}
	for deadline := time.Now().Add(2 * timeout); w.remembered() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d clients are remembered long after their last connection", w.remembered())
		}
	}
}

func TestAffinityIsOfOneServicePort(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	v := w.visitors(12)
	second := func(s *model.Service) { // another port of the Service, with the same endpoints
		s.SessionAffinity = time.Hour
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30081"), Protocol: model.TCP,
			Kind: model.NodePort, PortName: "second"}, model.Frontend{Addr: netip.MustParseAddrPort("172.30.0.200:80"), Protocol: model.TCP,
			Kind: model.LoadBalancer, PortName: "tcp"})
		for _, b := range s.Slices[0].Backends {
			if b.Protocol == model.TCP {
				b.PortName = "second"
				s.Slices[0].Backends = append(s.Slices[0].Backends, b)
			}
		}
	}
	w.run(w.outside, "ip route add 172.30.0.200/32 via "+nodeAddr)
	w.apply(w.service("web", 1, second, threePods...))
	first := v.visit(nodeAddr + ":30001")
	other := v.visit(nodeAddr + ":30081")
	if fmt.Sprint(first) == fmt.Sprint(other) { // 1 in 3^12
		t.Errorf("both ports have the same affinity: %v", first)
	}
	v.expectSame(nodeAddr+":30001", first)
	v.expectSame(nodeAddr+":30081", other)
	v.expectSame("172.30.0.200:80", first) // another address of the first port
}

func TestAffinityToAnEndpointThatIsNotUsableIsIgnored(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	v := w.visitors(12)
	at := nodeAddr + ":30001"
	w.apply(w.service("web", 1, sticky(time.Hour), threePods...))
	first := v.visit(at)
	const out = "10.244.1.2"
	for _, c := range []struct {
		name string
		edit func(*model.Backend)
	}{
		{"not ready", func(b *model.Backend) { b.Ready, b.Serving = false, false }},
		{"terminating", func(b *model.Backend) { b.Ready, b.Terminating = false, true }},
	} {
		w.apply(w.service("web", 1, func(s *model.Service) {
			s.SessionAffinity = time.Hour
			for i := range s.Slices[0].Backends {
				if b := &s.Slices[0].Backends[i]; b.Addr.Addr().String() == out {
					c.edit(b)
				}
			}
		}, threePods...))
		now := v.visit(at)
		for i := range now {
			if now[i] == out || first[i] != out && now[i] != first[i] {
				t.Errorf("%s: visitor %d is answered by %s after %s", c.name, i, now[i], first[i])
			}
		}
		v.expectSame(at, now)
		first = now
	}
}
