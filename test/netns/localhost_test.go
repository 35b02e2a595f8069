//go:build linux

package netns_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"minato/internal/dataplane/localhost"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
)

// NodePorts at 127.0.0.1 and ::1 of the node, by all parts together, and without route_localnet.
func TestNodePortsAtTheLoopback(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	s := localhost.New(localhost.Config{Netns: w.node, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	dual := w.service("web", 1, func(s *model.Service) {
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), 30001), Protocol: model.TCP, Kind: model.NodePort, PortName: "tcp"})
		s.Slices = append(s.Slices, &model.BackendSlice{Name: "web6", IPv6: true, Backends: []model.Backend{{Addr: netip.MustParseAddrPort("[fd00:244:1::2]:8080"),
			Protocol: model.TCP, PortName: "tcp", NodeName: "node1", Ready: true, Serving: true}}})
	}, "10.244.1.2")
	w.apply(dual, w.service("empty", 2, nil))
	if err := s.Publish(t.Context(), w.snap, func(model.ServiceName) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{"127.0.0.1:30001": nodeAddr, "[::1]:30001": nodeAddr6} {
		if a := netnstest.MustAsk(t, w.node, "tcp", at); a.Peer.String() != want {
			t.Errorf("%s: the pod saw %s, want the node's address", at, a.Peer)
		}
	}
	if a := netnstest.MustAsk(t, w.node, "udp", "127.0.0.1:30001"); a.Peer.String() != nodeAddr {
		t.Errorf("UDP: the pod saw %s, want the node's address", a.Peer)
	}
	if _, err := netnstest.Ask(w.node, "tcp", "127.0.0.1:30002"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("without an endpoint: got %v, want a reset", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(netnstest.Run(t, w.node, "sysctl", "-a", "-r", "route_localnet")), "\n") {
		if !strings.HasSuffix(line, "= 0") {
			t.Errorf("this lets the LAN reach what listens on the loopback (CVE-2020-8558): %s", line)
		}
	}
}

// A client of UDP at the loopback moves with its next datagram when its endpoint goes, as any other does.
func TestUDPAtTheLoopbackMovesWithItsEndpoint(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	s := localhost.New(localhost.Config{Netns: w.node, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	apply := func(endpoint string) {
		t.Helper()
		w.apply(w.service("web", 1, nil, endpoint))
		if err := s.Publish(t.Context(), w.snap, func(model.ServiceName) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	apply("10.244.1.2")
	c := w.client(t, w.node, "127.0.0.1:30001")
	for range 3 {
		c.expect("10.244.1.2")
	}
	apply("10.244.1.3")
	for range 3 {
		c.expect("10.244.1.3")
	}
}
