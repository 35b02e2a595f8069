package model

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawService makes a Service of few addresses, so that duplicates, moves between slices and mixed families occur.
func drawService(t *rapid.T) *Service {
	policy := rapid.SampledFrom([]TrafficPolicy{Cluster, Local})
	s := &Service{Proxied: true, InternalTrafficPolicy: policy.Draw(t, "internal"), ExternalTrafficPolicy: policy.Draw(t, "external")}
	hints := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "here"}), 0, 2)
	if rapid.Bool().Draw(t, "always hinted") {
		hints = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "here"}), 1, 2)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "slices") {
		sl := &BackendSlice{Name: fmt.Sprint("slice-", i)}
		for range rapid.IntRange(0, 5).Draw(t, "backends") {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 6).Draw(t, "addr"))})
			if rapid.IntRange(0, 5).Draw(t, "family") == 0 {
				addr = netip.MustParseAddr("fd00::1")
			}
			sl.Backends = append(sl.Backends, Backend{
				Addr:        netip.AddrPortFrom(addr, 80),
				Protocol:    rapid.SampledFrom([]Protocol{TCP, TCP, TCP, UDP}).Draw(t, "protocol"),
				PortName:    rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "port"),
				NodeName:    rapid.SampledFrom([]string{"here", "there", ""}).Draw(t, "node"),
				Target:      fmt.Sprint("default/pod-", rapid.IntRange(1, 3).Draw(t, "pod")),
				ForZones:    hints.Draw(t, "zones"),
				ForNodes:    hints.Draw(t, "nodes"),
				Ready:       rapid.Bool().Draw(t, "ready"),
				Serving:     rapid.Bool().Draw(t, "serving"),
				Terminating: rapid.Bool().Draw(t, "terminating"),
			})
		}
		s.Slices = append(s.Slices, sl)
	}
	return s
}

type question struct {
	f     Frontend
	n     *Node
	scope Scope
}

func drawQuestion(t *rapid.T) question {
	return question{
		f:     rapid.SampledFrom([]Frontend{atClusterIP, atNodePort}).Draw(t, "frontend"),
		n:     &Node{Name: "here", Zone: rapid.SampledFrom([]string{"", "a", "c"}).Draw(t, "zone")},
		scope: rapid.SampledFrom([]Scope{Inside, Outside}).Draw(t, "scope"),
	}
}

func TestSelectAccountsForEveryBackendOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := drawService(t), drawQuestion(t)
		sel := Select(s, q.f, q.n, q.scope)
		times := map[*Backend]int{}
		for _, b := range sel.Backends {
			times[b]++
		}
		for _, l := range sel.LeftOut {
			times[l.Backend]++
		}
		for b := range s.Backends(q.f.PortName, q.f.Protocol) {
			if times[b] != 1 {
				t.Fatalf("%v is %d times in the selection", b, times[b])
			}
			delete(times, b)
		}
		if len(times) > 0 {
			t.Fatalf("the selection has backends of other ports: %v", times)
		}
	})
}

func TestSelectChoosesOnlyWhatMayBeUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := drawService(t), drawQuestion(t)
		sel := Select(s, q.f, q.n, q.scope)
		if got, want := sel.Policy, s.Policy(q.f.Kind, q.scope); got != want {
			t.Fatalf("policy %s, want %s", got, want)
		}
		if (sel.Verdict == Forward) != (len(sel.Backends) > 0) {
			t.Fatalf("verdict %s with %d backends", sel.Verdict, len(sel.Backends))
		}
		if sel.Verdict == Drop && sel.Policy != Local {
			t.Fatal("only policy Local drops")
		}
		for i, b := range sel.Backends {
			switch {
			case i > 0 && b.Addr.Compare(sel.Backends[i-1].Addr) <= 0:
				t.Fatal("not sorted, or an address twice")
			case b.Addr.Addr().Is6() != q.f.Addr.Addr().Is6():
				t.Fatalf("%v is of the other family", b)
			case sel.Policy == Local && b.NodeName != "here":
				t.Fatalf("%v is on another node", b)
			case sel.Fallback && (b.Ready || !b.Serving || !b.Terminating):
				t.Fatalf("%v is no fallback", b)
			case !sel.Fallback && !b.Ready:
				t.Fatalf("%v is not ready", b)
			}
		}
	})
}

func TestSelectGivesTrueReasons(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := drawService(t), drawQuestion(t)
		sel := Select(s, q.f, q.n, q.scope)
		for _, l := range sel.LeftOut {
			b := l.Backend
			truth := map[Reason]bool{
				NotReady:          !b.Ready && !b.Terminating,
				Terminating:       !b.Ready && b.Terminating && b.Serving && len(sel.Backends) > 0 && !sel.Fallback,
				TerminatingFailed: !b.Ready && b.Terminating && !b.Serving,
				OtherNode:         sel.Policy == Local && b.NodeName != "here",
				OtherNodeHint:     sel.Policy == Cluster && !slices.Contains(b.ForNodes, "here"),
				OtherZoneHint:     sel.Policy == Cluster && !slices.Contains(b.ForZones, q.n.Zone),
				OtherFamily:       b.Addr.Addr().Is6() != q.f.Addr.Addr().Is6(),
				Duplicate:         twins(s, q.f, b) > 1,
			}
			if !truth[l.Reason] {
				t.Fatalf("%v was left out as %q", b, l.Reason)
			}
		}
	})
}

func twins(s *Service, f Frontend, b *Backend) (n int) {
	for o := range s.Backends(f.PortName, f.Protocol) {
		if o.Addr == b.Addr {
			n++
		}
	}
	return n
}

func TestSelectDoesNotDependOnTheOrderOfBackends(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, q := drawService(t), drawQuestion(t)
		shuffled := *s
		shuffled.Slices = []*BackendSlice{{Name: "all"}}
		for b := range s.AllBackends() {
			b := *b
			b.ForZones, b.ForNodes = []string{"a"}, []string{"here"} // hints of duplicates are in no order
			shuffled.Slices[0].Backends = append(shuffled.Slices[0].Backends, b)
		}
		describe := func(s *Service) string {
			sel := Select(s, q.f, q.n, q.scope)
			var left []string
			for _, l := range sel.LeftOut {
				left = append(left, fmt.Sprint(l.Backend, l.Reason))
			}
			slices.Sort(left)
			return fmt.Sprint(sel.Verdict, sel.Fallback, sel.Backends, left)
		}
		want := describe(&shuffled)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		all := shuffled.Slices[0].Backends
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if got := describe(&shuffled); got != want {
			t.Fatalf("after a shuffle:\n%s\nbefore:\n%s", got, want)
		}
	})
}
