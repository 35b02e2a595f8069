package nftables_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

func TestWhatAKernelHoldsIsComparedWithThePlan(t *testing.T) {
	one, two, stray := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.9:80")
	pool := &nftables.Pool{Class: nftables.Class{N: 2, Affinity: time.Minute}, Endpoints: []netip.AddrPort{one, two}}
	frontend := nftables.Frontend{Masquerade: true}
	for _, c := range []struct {
		name string
		edit func(*nftables.Held)
		want []string
	}{
		{"as planned, in another order", func(h *nftables.Held) { h.Endpoints = []netip.AddrPort{two, one} }, nil},
		{"no frontend", func(h *nftables.Held) { *h = nftables.Held{} }, []string{"does not have this address"}},
		{"another verdict", func(h *nftables.Held) { h.Verdict = model.Drop }, []string{"has the verdict drop, planned is forward"}},
		{"a backend missing", func(h *nftables.Held) { h.Endpoints = h.Endpoints[:1] }, []string{"does not have backend 10.0.0.2:80"}},
		{"a backend too many", func(h *nftables.Held) { h.Endpoints = append(h.Endpoints, stray) }, []string{"has a backend that is not planned: 10.0.0.9:80"}},
		{"a slot that leads nowhere", func(h *nftables.Held) { h.Endpoints = append(h.Endpoints, netip.AddrPort{}) },
			[]string{"chooses a backend at times that it does not have: such connections are dropped"}},
		{"affinity", func(h *nftables.Held) { h.Affinity = 0 }, []string{"has affinity 0s, planned is 1m0s"}},
		{"masquerade", func(h *nftables.Held) { h.Masquerade = false }, []string{"has masquerade false, planned is true"}},
	} {
		held := nftables.Held{Found: true, Affinity: time.Minute, Endpoints: []netip.AddrPort{one, two}, Masquerade: true}
		c.edit(&held)
		if diff := cmp.Diff(c.want, held.Differences(frontend, pool)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
