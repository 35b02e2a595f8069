//go:build linux

package netns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
)

// client is a UDP socket that goes on sending from one port, as a resolver or a metrics client does.
type client struct {
	net.Conn
	t *testing.T
}

func (w *world) client(t *testing.T, from netns.NS, to string) client {
	t.Helper()
	c, err := from.DialContext(context.Background(), "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{c, t}
}

// ask sends a datagram and returns who answers it.
func (c client) ask() (string, error) {
	c.SetDeadline(time.Now().Add(netnstest.Wait))
	if _, err := c.Write([]byte("who?")); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	name, _, _ := strings.Cut(string(buf[:n]), " ")
	return name, err
}

func (c client) expect(want string) {
	c.t.Helper()
	if got, err := c.ask(); err != nil || got != want {
		c.t.Errorf("%s is answered by %q (%v), want %s", c.RemoteAddr(), got, err, want)
	}
}

func (c client) expectRefused() {
	c.t.Helper()
	for range 2 { // the first write after an ICMP error may report that of the packet before
		if got, err := c.ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			c.t.Errorf("%s: got %q (%v), want connection refused", c.RemoteAddr(), got, err)
		}
	}
}

func TestFlowsAreToldAsTheyBeginAndWithTheirState(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	ctx, stop := context.WithCancel(t.Context())
	began := make(chan nfnl.Flow, 100)
	watched := make(chan error, 1)
	go func() {
		watched <- nfnl.WatchFlows(ctx, w.node, func(f nfnl.Flow) { began <- f }, func(nfnl.Flow) {}, func() {})
	}()
	to := netip.MustParseAddrPort("10.96.0.1:80")
	var first nfnl.Flow
	deadline := time.After(netnstest.Wait)
	for first.Dst != to { // the watch begins when it does: connect until one is told of
		conn, err := w.node.DialContext(t.Context(), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		select {
		case first = <-began:
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("no flow is told of")
		}
	}
	stop()
	if err := <-watched; err != nil || first.ReplySrc.String() != "10.244.1.2:8080" || first.State != "syn sent" {
		t.Errorf("%v, the first is %+v", err, first)
	}
	open, err := w.node.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	w.client(t, w.node, to.String()).expect("10.244.1.2")
	c, err := nfnl.Open(w.node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	half := []string{"established", "fin wait", "close wait"} // the server closes when it has said its words
	for protocol, want := range map[model.Protocol][]string{model.TCP: half, model.UDP: {"replied"}} {
		found := false
		if err := c.Flows(nfnl.IPv4, uint8(protocol), func(f nfnl.Flow) {
			found = found || f.Dst == to && slices.Contains(want, f.State) && f.Left > 0 && f.ReplySrc.String() == "10.244.1.2:8080"
		}); err != nil || !found {
			t.Errorf("%s: no flow is %s (%v)", protocol, want, err)
		}
	}
}

// flows are the ids of all UDP flows of the node, sorted.
func (w *world) flows() (ids []uint32) {
	w.t.Helper()
	c, err := nfnl.Open(w.node)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		if err := c.Flows(f, uint8(model.UDP), func(f nfnl.Flow) { ids = append(ids, f.ID) }); err != nil {
			w.t.Fatal(err)
		}
	}
	slices.Sort(ids)
	return ids
}

// everywhere gives a Service, beside its ClusterIP and NodePort, an address of a load balancer and IPv6, for UDP.
func everywhere(s *model.Service) {
	s.Frontends = append(s.Frontends,
		model.Frontend{Addr: netip.MustParseAddrPort("172.30.0.200:80"), Protocol: model.UDP, Kind: model.LoadBalancer, PortName: "udp"},
		model.Frontend{Addr: netip.MustParseAddrPort("[fd00:96::1]:80"), Protocol: model.UDP, PortName: "udp"})
}

func TestFlowsMoveWhenTheirEndpointIsGone(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.run(w.outside, "ip route add 172.30.0.200/32 via "+nodeAddr)
	first, second := []string{"10.244.1.2", "fd00:244:1::2"}, []string{"10.244.1.3", "fd00:244:1::3"}
	w.apply(w.service("web", 1, everywhere, first...))
	clients := map[string]client{
		"pod, ClusterIP":           w.client(t, w.pod(9), "10.96.0.1:80"),
		"pod, IPv6":                w.client(t, w.pod(9), "[fd00:96::1]:80"),
		"node, ClusterIP":          w.client(t, w.node, "10.96.0.1:80"),
		"outside, NodePort":        w.client(t, w.outside, nodeAddr+":30001"),
		"outside, load balancer":   w.client(t, w.outside, "172.30.0.200:80"),
		"endpoint itself, hairpin": w.client(t, w.pod(3), "10.96.0.1:80"),
	}
	answered := func(by []string) {
		t.Helper()
		for name, c := range clients {
			want := by[0]
			if name == "pod, IPv6" {
				want = by[1]
			}
			c.expect(want)
		}
	}
	answered(first)
	w.apply(w.service("web", 1, everywhere, append(first, second...)...))
	answered(first) // both serve: no flow moves
	w.apply(w.service("web", 1, everywhere, second...))
	answered(second)
}

func TestFlowsAreRefusedWithoutEndpointsAndResumeWithTheFirst(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	clients := []client{w.client(t, w.pod(9), "10.96.0.1:80"), w.client(t, w.outside, nodeAddr+":30001")}
	for _, c := range clients {
		c.expect("10.244.1.2")
	}
	w.apply(w.service("web", 1, nil))
	for _, c := range clients {
		c.expectRefused()
	}
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	for _, c := range clients {
		c.expect("10.244.1.2")
	}
}

func TestFlowsFromBeforeTheServiceAreTranslated(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("other", 9, nil, "10.244.1.2"))
	w.run(w.outside, "ip address add 172.30.0.200/32 dev lo")
	netnstest.ServeUDP(t, w.outside, "somebody else", "172.30.0.200:80")
	port := w.client(t, w.outside, nodeAddr+":30001")
	port.expectRefused() // by the node itself: nothing listens
	through := w.client(t, w.pod(9), "172.30.0.200:80")
	through.expect("somebody") // passed on, untranslated
	w.apply(w.service("web", 1, everywhere, "10.244.1.2"))
	port.expect("10.244.1.2")
	through.expect("10.244.1.2")
}

func TestFlowsOfLiveEndpointsAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"), w.service("other", 2, nil, "10.244.1.4", "10.244.1.2"))
	var clients []client
	var names []string
	for range 8 {
		c := w.client(t, w.pod(9), "10.96.0.1:80")
		name, err := c.ask()
		if err != nil {
			t.Fatal(err)
		}
		clients, names = append(clients, c), append(names, name)
	}
	same := func(when string) {
		t.Helper()
		for i, c := range clients {
			c.expect(names[i])
		}
		if t.Failed() {
			t.Fatal("after " + when)
		}
	}
	for _, c := range []struct {
		when string
		edit func(*model.Service)
	}{
		{"termination of endpoints that still serve", func(s *model.Service) {
			for i := range s.Slices[0].Backends {
				b := &s.Slices[0].Backends[i]
				b.Ready, b.Terminating = b.Addr.Addr().String() != "10.244.1.2", true
			}
		}},
		{"policy Local", func(s *model.Service) { s.InternalTrafficPolicy = model.Local }},
		{"affinity", func(s *model.Service) { s.SessionAffinity = time.Hour }},
	} {
		w.apply(w.service("web", 1, c.edit, "10.244.1.2", "10.244.1.3"))
		same(c.when)
	}
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3", "10.244.1.4")) // one comes
	same("growth")
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"))
	same("the end of another endpoint")
	w.apply(w.service("other", 2, nil, "10.244.1.4"), w.service("third", 3, nil, "10.244.1.2"))
	same("changes of other Services")
}

func TestRestartLeavesFlowsAlone(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, everywhere, "10.244.1.2", "10.244.1.3", "fd00:244:1::2"))
	for i := range 10 {
		to := []string{"10.96.0.1:80", "[fd00:96::1]:80", nodeAddr + ":30001"}[i%3]
		if _, err := w.client(t, w.pod(9), to).ask(); err != nil {
			t.Fatal(err)
		}
	}
	before := w.flows()
	w.dp.Close()
	w.dp = w.open()
	w.programmed()
	if after := w.flows(); len(before) < 10 || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("flows %v became %v", before, after)
	}
}

// What went while nobody watched is found at the next start (kubernetes#139628 across a restart).
func TestRestartMovesFlowsWhoseEndpointWentMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("other", 2, nil, "10.244.1.3"))
	lost, kept := w.client(t, w.pod(9), "10.96.0.1:80"), w.client(t, w.pod(9), "10.96.0.2:80")
	lost.expect("10.244.1.2")
	kept.expect("10.244.1.3")
	w.dp.Close()
	w.dp = w.open()
	w.apply(w.service("web", 1, nil, "10.244.1.3"))
	lost.expect("10.244.1.3")
	kept.expect("10.244.1.3")
}
