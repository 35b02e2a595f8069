//go:build linux

package kernel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

// faults fails one commit in ten.
func faults(t *rapid.T) func() nfnltest.Fault {
	return func() nfnltest.Fault {
		return rapid.SampledFrom([]nfnltest.Fault{nfnltest.Refused, nfnltest.Lost, nfnltest.Vanish, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}).Draw(t, "fault")
	}
}

// frontends are the keys of a snapshot and, by model.Select alone, what is to happen there.
func frontends(s *model.Snapshot) map[nftables.Key]outcome {
	out := map[nftables.Key]outcome{}
	for svc := range s.Services() {
		for _, f := range svc.Frontends {
			addrs := []netip.Addr{f.Addr.Addr()}
			if f.Kind == model.NodePort {
				addrs = slices.DeleteFunc(slices.Clone(s.Node.Addrs), func(a netip.Addr) bool { return a.Is6() != f.Addr.Addr().Is6() })
			}
			for _, a := range addrs {
				for _, scope := range []model.Scope{model.Inside, model.Outside} {
					o := selected(svc, f, s.Node, scope)
					if shutOut(svc, f, client(nftables.Key{Scope: scope, Addr: a}).Addr()) {
						o = outcome{action: "drop", pool: o.to}
					}
					o.port = servicePort{svc.Name, f.PortName}
					out[nftables.Key{Scope: scope, Addr: a, Protocol: f.Protocol, Port: f.Addr.Port()}] = o
				}
			}
		}
	}
	return out
}

// shutOut: the client is in none of the ranges of a load balancer address.
func shutOut(svc *model.Service, f model.Frontend, client netip.Addr) bool {
	return f.Kind == model.LoadBalancer && len(svc.SourceRanges) > 0 &&
		!slices.ContainsFunc(svc.SourceRanges, func(p netip.Prefix) bool { return p.Contains(client) })
}

func selected(svc *model.Service, f model.Frontend, n *model.Node, scope model.Scope) outcome {
	sel := model.Select(svc, f, n, scope)
	switch {
	case sel.Verdict == model.Drop:
		return outcome{action: "drop", chain: "drop"}
	case sel.Verdict == model.Reject && f.Protocol == model.TCP:
		return outcome{action: "reset"}
	case sel.Verdict == model.Reject:
		return outcome{action: "unreachable"}
	}
	o := outcome{action: "dnat"}
	for _, b := range sel.Backends {
		o.to = append(o.to, b.Addr)
	}
	switch {
	case f.Kind == model.ClusterIP:
		o.masquerade = scope == model.Outside
	default:
		o.masquerade = svc.ExternalTrafficPolicy == model.Cluster
	}
	return o
}

// checker looks at the kernel after every commit.
type checker struct {
	t          *rapid.T
	k          *nfnltest.Kernel
	prev, next map[nftables.Key]outcome
	commits    int
}

// committed: no look-up misses, and nobody is sent to a Service which has the address neither in the world before nor
// in the one after.
func (c *checker) committed() {
	c.commits++
	endpoints := map[servicePort][]netip.AddrPort{}
	for _, world := range []map[nftables.Key]outcome{c.prev, c.next} {
		for _, o := range world {
			endpoints[o.port] = append(endpoints[o.port], slices.Concat(o.to, o.pool)...)
		}
	}
	for _, world := range []map[nftables.Key]outcome{c.prev, c.next} {
		for key := range world {
			got := send(c.k, key)
			if got.action == "drop" && got.chain != "drop" && got.chain != "vip" && !strings.HasSuffix(got.chain, "-in-range") {
				c.t.Fatalf("commit %d: %s: look-up missed in chain %s\n%s", c.commits, key, got.chain, c.k.Dump())
			}
			allowed := slices.Concat(endpoints[c.prev[key].port], endpoints[c.next[key].port])
			for _, to := range got.to {
				if !slices.Contains(allowed, to) {
					c.t.Fatalf("commit %d: %s goes to %s, which is none of %v\n%s", c.commits, key, to, allowed, c.k.Dump())
				}
			}
		}
	}
}

// reach applies a snapshot in spite of faults.
func reach(t *rapid.T, a *kernel.Applier, s *model.Snapshot) {
	for range 200 {
		failed, err := a.Program(context.Background(), s)
		if err == nil && len(failed) == 0 && a.Reap(context.Background(), s) == nil {
			return
		}
	}
	t.Fatalf("not applied after 200 attempts")
}

func TestAnySequenceOfChangesRestartsAndFaultsReachesThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := nfnltest.New()
		c := &checker{t: t, k: k, prev: map[nftables.Key]outcome{}, next: map[nftables.Key]outcome{}}
		k.Committed = c.committed
		k.Faults = faults(t)
		reopen := func() (a *kernel.Applier) {
			err := errors.New("never tried")
			for err != nil {
				a, err = kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: serviceCIDRs})
			}
			return a
		}
		a := reopen()
		s := model.Empty().On(theNode)
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			s = genSnapshot(t, s)
			c.prev, c.next = c.next, frontends(s)
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				if _, err := a.Program(context.Background(), s); err == nil && rapid.Bool().Draw(t, "in the middle") {
					a = reopen()
				}
			}
			reach(t, a, s)
			checkReached(t, k, a, s)
		}
		checkLikeFreshLoad(t, k, s)
	})
}

// checkReached: the kernel does what Select says, Lookup says the same, and nothing differs from what was programmed.
func checkReached(t *rapid.T, k *nfnltest.Kernel, a *kernel.Applier, s *model.Snapshot) {
	for key, want := range frontends(s) {
		got := send(k, key)
		if got.action != want.action || !slices.Equal(got.to, want.to) || got.action == "dnat" && got.masquerade != want.masquerade {
			t.Fatalf("%s: the kernel does %s, Select says %s\n%s", key, got, want, k.Dump())
		}
		answer, ok := a.Lookup(key)
		slices.SortFunc(answer.Endpoints, netip.AddrPort.Compare)
		if len(answer.Sources) > 0 && !slices.ContainsFunc(answer.Sources, func(p netip.Prefix) bool { return p.Contains(client(key).Addr()) }) {
			answer.Endpoints = nil
		}
		if !ok || !slices.Equal(answer.Endpoints, want.to) {
			t.Fatalf("%s: Lookup says %v %v, Select says %s", key, answer, ok, want)
		}
	}
	if d, err := a.Diff(context.Background()); err != nil || len(d) > 0 {
		t.Fatalf("differences: %v %v", d, err)
	}
}

// checkLikeFreshLoad: apart from ids, nothing is left of history.
func checkLikeFreshLoad(t *rapid.T, k *nfnltest.Kernel, s *model.Snapshot) {
	fresh := nfnltest.New()
	apply(t, open(t, fresh), s)
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		for _, set := range []string{"scope", "node", "range", "svc", "slot", "ep", "allow", "masq", "hairpin", "vip", "pass"} {
			if got, want := size(t, k, f, set), size(t, fresh, f, set); got != want {
				t.Fatalf("%s %s has %d elements, a fresh load has %d\n%s\nfresh:\n%s", f, set, got, want, k.Dump(), fresh.Dump())
			}
		}
		if got, want := poolsCounted(t, k, f), poolsCounted(t, fresh, f); got != want {
			t.Fatalf("%s has counters of %d pools, a fresh load has %d", f, got, want)
		}
	}
}

// poolsCounted is how many pools have counters: a counter of a verdict that a pool no longer has stays with its figure.
func poolsCounted(t tester, k *nfnltest.Kernel, f nfnl.Family) int {
	pools := map[uint32]bool{}
	if err := k.Elements(f, kernel.DefaultTable, "count", func() {}, func(e nfnl.Element) {
		if !e.CatchAll {
			pools[binary.NativeEndian.Uint32(e.Key)] = true
		}
	}); err != nil {
		t.Fatalf("%v", err)
	}
	return len(pools)
}

func size(t tester, k *nfnltest.Kernel, f nfnl.Family, set string) (n int) {
	if err := k.Elements(f, kernel.DefaultTable, set, func() { n = 0 }, func(nfnl.Element) { n++ }); err != nil {
		t.Fatalf("%v", err)
	}
	return n
}
