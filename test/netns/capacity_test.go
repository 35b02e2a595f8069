//go:build linux

package netns_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/nfnl"
)

// records gathers what is logged.
type records struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *records) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.text.String(), what)
}

// noCount is a kernel that does not say how many elements a set has, as those before 6.18.
type noCount struct{ *nfnl.Conn }

func (noCount) Count(nfnl.Family, string, string) (int, bool, error) { return 0, false, nil }

// running has the world's applier be one for this many clients, which runs until the test ends.
func (w *world) running(clients int, counts bool) (log *records) {
	w.t.Helper()
	w.dp.Close()
	log = &records{}
	cfg := kernel.Config{Netns: w.node, AffinityClients: clients, Log: slog.New(slog.NewTextHandler(log, nil))}
	if !counts {
		conn, err := nfnl.Open(w.node)
		if err != nil {
			w.t.Fatal(err)
		}
		cfg.Kernel = noCount{conn}
	}
	dp, err := kernel.Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- dp.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		dp.Close()
	})
	w.dp = dp
	return log
}

// problem waits until the applier says something, or nothing any more.
func (w *world) problem(want string) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := w.dp.Problem()
		if strings.Contains(got, want) && (want != "" || got == "") {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the applier says %q, want %q", got, want)
		}
	}
}

// TestClientsWithoutRoomGetAnyEndpointAndThisIsSaid fills the set of remembered clients of IPv4, which here has room for ten.
func TestClientsWithoutRoomGetAnyEndpointAndThisIsSaid(t *testing.T) {
	const room, further = 10, 4
	w := newWorld(t)
	w.serve(2, 3, 4)
	log := w.running(room, true)
	v := w.visitors(room + further)
	at := nodeAddr + ":30001"
	w.apply(w.service("web", 1, sticky(time.Hour), threePods...))
	some := func(from, to int) visitors { return visitors{w, v.addrs[from:to]} }

	some(0, room-1).visit(at)
	w.problem("9 of at most 10 clients of IPv4")
	known := some(0, room)
	first := known.visit(at)
	w.problem("no room for more than 10 clients of IPv4, and further ones get any endpoint")

	const visits = 20
	seen := map[string]bool{}
	for _, a := range v.addrs[room:] {
		own := map[string]bool{}
		for range visits {
			name, err := visit(w.outside, a, at)
			if err != nil {
				t.Fatalf("from %s: %v", a, err)
			}
			own[name], seen[name] = true, true
		}
		if len(own) < 2 { // 1 in 3^19
			t.Errorf("%s is answered by %v alone, though there is no room to remember it", a, own)
		}
	}
	if len(seen) != len(threePods) {
		t.Errorf("clients without room are answered by %v, want all of %v", seen, threePods)
	}
	known.expectSame(at, first)

	got := figures(t, w.dp)
	for name, want := range map[string]float64{
		"minato_affinity_clients IPv4": room, "minato_affinity_clients_limit IPv4": room, "minato_affinity_forgone_total IPv4": further * visits,
		"minato_affinity_clients IPv6": 0, "minato_affinity_clients_limit IPv6": room, "minato_affinity_forgone_total IPv6": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for what, want := range map[string]int{"9 of at most 10": 1, "no room for more": 1} {
		if n := log.count(what); n != want {
			t.Errorf("%q is logged %d times, want %d", what, n, want)
		}
	}
}

// TestRoomForClientsComesBack has clients be forgotten.
func TestRoomForClientsComesBack(t *testing.T) {
	const room = 4
	w := newWorld(t)
	w.serve(2)
	w.running(room, true)
	v := w.visitors(room + 1)
	w.apply(w.service("web", 1, sticky(8*time.Second), "10.244.1.2"))
	v.visit(nodeAddr + ":30001")
	w.problem("no room")
	w.problem("")
}

// TestAKernelThatDoesNotCountSaysThatThereIsNoRoom has the rules alone tell it.
func TestAKernelThatDoesNotCountSaysThatThereIsNoRoom(t *testing.T) {
	const room = 2
	w := newWorld(t)
	w.serve(2)
	w.running(room, false)
	v := w.visitors(room + 1)
	at := nodeAddr + ":30001"
	w.apply(w.service("web", 1, sticky(time.Hour), "10.244.1.2"))
	for deadline := time.Now().Add(20 * time.Second); w.dp.Problem() == ""; { // it says so while there are such clients
		v.visit(at)
		if time.Now().After(deadline) {
			t.Fatal("nothing is said")
		}
	}
	w.problem("no room for more than 2 clients")
	w.problem("")
	got := figures(t, w.dp)
	if _, there := got["minato_affinity_clients IPv4"]; there || got["minato_affinity_forgone_total IPv4"] == 0 {
		t.Errorf("figures of a kernel that does not count: %v", got)
	}
}
