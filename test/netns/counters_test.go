//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"testing"
	"time"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
)

// counted are the connections of a Service by TCP and what became of them, and of its endpoints by address.
func (w *world) counted(service string) (c kernel.Connections, endpoints map[string]uint64) {
	w.t.Helper()
	name := model.ServiceName{Namespace: "default", Name: service}
	pools, err := w.dp.Connections(name)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := w.dp.Connections(model.ServiceName{})
	if err != nil {
		w.t.Fatal(err)
	}
	whole := map[string]kernel.Connections{}
	for _, p := range all {
		whole[fmt.Sprint(p.Service, p.PoolKey)] = p.Connections
	}
	endpoints = map[string]uint64{}
	for _, p := range pools {
		if got := whole[fmt.Sprint(p.Service, p.PoolKey)]; got != p.Connections {
			w.t.Errorf("%s %v: %+v of one, %+v of all", p.Service, p.PoolKey, p.Connections, got)
		}
		if p.Protocol != model.TCP {
			continue
		}
		c.Forwarded, c.Refused, c.Dropped = c.Forwarded+p.Forwarded, c.Refused+p.Refused, c.Dropped+p.Dropped
		for _, e := range p.Endpoints {
			if !e.Counted {
				w.t.Errorf("%s is not counted", e.Addr)
			}
			endpoints[e.Addr.Addr().String()] += e.Forwarded
		}
	}
	return c, endpoints
}

func (w *world) expectCounted(service string, want kernel.Connections) map[string]uint64 {
	w.t.Helper()
	c, endpoints := w.counted(service)
	if c != want {
		w.t.Errorf("%s: %+v, want %+v", service, c, want)
	}
	return endpoints
}

func TestConnectionsAreCountedForEachServiceAndEndpoint(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"), w.service("other", 2, nil, "10.244.1.2"), w.service("empty", 3, nil))
	answered := map[string]uint64{}
	for range 20 {
		answered[netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80").Name]++
		answered[netnstest.MustAsk(t, w.outside, "tcp", nodeAddr+":30001").Name]++
	}
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.2:80")
	for range 3 {
		if _, err := netnstest.Ask(w.node, "tcp", "10.96.0.3:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want connection refused", err)
		}
	}
	if got := w.expectCounted("web", kernel.Connections{Forwarded: 40}); !maps.Equal(got, answered) {
		t.Errorf("by endpoint %v, of those %v answered", got, answered)
	}
	w.expectCounted("other", kernel.Connections{Forwarded: 1})
	w.expectCounted("empty", kernel.Connections{Refused: 3})
	w.listing()
}

func TestWhatARuleOfTheServiceDropsIsCounted(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.run(w.outside, "ip route add 172.30.0.201/32 via "+nodeAddr)
	w.apply(w.service("guarded", 1, balanced("172.30.0.201:80", "10.0.0.0/8"), "10.244.1.2"),
		w.service("there", 2, func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }, farPod))
	for _, at := range []string{"172.30.0.201:80", nodeAddr + ":30002"} {
		if _, err := netnstest.Ask(w.outside, "tcp", at); !timedOut(err) {
			t.Errorf("%s: got %v, want silence", at, err)
		}
	}
	netnstest.MustAsk(t, w.pod(9), "tcp", "172.30.0.201:80")
	for _, service := range []string{"guarded", "there"} {
		c, _ := w.counted(service)
		if c.Dropped == 0 || c.Refused > 0 { // each packet of the client counts
			t.Errorf("%s: %+v", service, c)
		}
		c.Dropped = 0
		if want := (kernel.Connections{Forwarded: map[string]uint64{"guarded": 1}[service]}); c != want {
			t.Errorf("%s: forwarded %+v, want %+v", service, c, want)
		}
	}
}

func TestClientsWithAffinityAreCountedOnceAConnection(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	sticky := func(s *model.Service) { s.SessionAffinity = time.Hour }
	w.apply(w.service("web", 1, sticky, "10.244.1.2", "10.244.1.3"))
	var kept string
	for range 7 { // the first is new, the others known
		kept = netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80").Name
	}
	if got := w.expectCounted("web", kernel.Connections{Forwarded: 7}); got[kept] != 7 {
		t.Errorf("by endpoint %v, %s answered all", got, kept)
	}
}

func TestFiguresOutliveEndpointsVerdictsAndRestarts(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	ask := func(n int) {
		t.Helper()
		for range n {
			netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80")
		}
	}
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	ask(5)
	w.apply(w.service("web", 1, nil, "10.244.1.3"))
	if got := w.expectCounted("web", kernel.Connections{Forwarded: 5}); got["10.244.1.3"] != 0 {
		t.Errorf("an endpoint that took the place of another began with its figure: %v", got)
	}
	ask(2)
	w.apply(w.service("web", 1, nil))
	if _, err := netnstest.Ask(w.pod(9), "tcp", "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"))
	w.expectCounted("web", kernel.Connections{Forwarded: 7, Refused: 1})
	w.dp.Close()
	w.dp = w.open()
	w.programmed()
	ask(1)
	w.expectCounted("web", kernel.Connections{Forwarded: 8, Refused: 1})
	if d := w.differences(); len(d) > 0 {
		t.Errorf("after all this: %v", d)
	}
}

// deleteCounters does what somebody else might.
func (w *world) deleteCounters() {
	w.t.Helper()
	c, err := nfnl.Open(w.node)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	var keys []nfnl.Element
	if err := c.Elements(nfnl.IPv4, kernel.DefaultTable, "count", func() { keys = nil }, func(e nfnl.Element) {
		if !e.CatchAll {
			keys = append(keys, nfnl.Element{Key: bytes.Clone(e.Key)})
		}
	}); err != nil {
		w.t.Fatal(err)
	}
	b := nfnl.NewBatch()
	b.DeleteElements(nfnl.IPv4, kernel.DefaultTable, "count", keys...)
	if err := c.Commit(b); err != nil || len(keys) == 0 {
		w.t.Fatalf("deleted %d counters: %v", len(keys), err)
	}
}

// What counts must never be what fails: where somebody deletes a counter, only figures are lost.
func TestConnectionsNeedNoCounter(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("empty", 2, nil))
	w.deleteCounters()
	for range 3 {
		netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80")
	}
	if _, err := netnstest.Ask(w.node, "tcp", "10.96.0.2:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", err)
	}
	w.observed(true)
	w.programmed()
	netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80")
	w.expectCounted("web", kernel.Connections{Forwarded: 1})
}

func TestServicesHaveFiguresInTheMetrics(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("idle", 2, nil, "10.244.1.2"))
	for range 4 {
		netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80")
	}
	got := figures(t, w.dp)
	if n := got["minato_service_connections_total IPv4 default web forwarded"]; n != 4 {
		t.Errorf("web has %v, want 4 of %v", n, got)
	}
	if n, ok := got["minato_service_connections_total IPv4 default idle forwarded"]; ok {
		t.Errorf("a Service without connections has the figure %v", n)
	}
	w.snap = w.snap.With(func(e *model.Edit) { e.DeleteService(model.ServiceName{Namespace: "default", Name: "web"}) }).On(w.self)
	w.programmed()
	if n, ok := figures(t, w.dp)["minato_service_connections_total IPv4 default web forwarded"]; ok {
		t.Errorf("a Service that is gone has the figure %v", n)
	}
	if _, err := w.dp.Diff(context.Background()); err != nil {
		t.Error(err)
	}
}
