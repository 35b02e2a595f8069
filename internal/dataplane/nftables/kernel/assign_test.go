//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// kernelInWords is a State with its ledger, to which changes are applied as if the kernel had taken them.
type kernelInWords struct{ assigner }

func newKernelInWords() *kernelInWords {
	return &kernelInWords{assigner{state: newState(), ledger: newLedger(),
		stillWanted: func(model.ServiceName, nftables.Key) bool { return true }}}
}

// assign takes a Service to endpoints 10.0.0.N and returns the operations, a line for each step.
func (k *kernelInWords) assign(t *testing.T, reap bool, endpoints ...int) string {
	t.Helper()
	c := newChange()
	if _, err := k.assigner.assign(c, model.ServiceName{Namespace: "default", Name: "web"}, planOf(endpoints), reap); err != nil {
		t.Fatal(err)
	}
	k.finish(c)
	var lines []string
	for i := range c.steps {
		var ops []string
		for _, e := range c.steps[i].del {
			ops = append(ops, "-"+inShort(e))
			k.state.apply(e, true)
		}
		for _, e := range c.steps[i].add {
			ops = append(ops, "+"+inShort(e))
			k.state.apply(e, false)
		}
		if len(ops) > 0 {
			lines = append(lines, fmt.Sprintf("%d: %s", i+1, strings.Join(ops, " ")))
		}
	}
	for _, f := range c.done {
		f()
	}
	return strings.Join(lines, "\n")
}

func inShort(e Element) string {
	switch e.Set {
	case setSlot:
		if e.Endpoint == 0 {
			return fmt.Sprintf("slot(%d)", e.Slot)
		}
		return fmt.Sprintf("slot(%d->%d)", e.Slot, e.Endpoint)
	case setEp:
		if !e.Target.IsValid() {
			return fmt.Sprintf("ep(%d)", e.Endpoint)
		}
		return fmt.Sprintf("ep(%d->%s)", e.Endpoint, e.Target.Addr())
	case setSvc:
		if e.Pool == 0 {
			return "svc"
		}
		return fmt.Sprintf("svc(%s)", e.Class)
	case setCount:
		return fmt.Sprintf("count(%d, %s)", e.Pool, e.Verdict)
	}
	return string(e.Set)
}

// planOf is one frontend; nil when there is to be none.
func planOf(endpoints []int) *nftables.ServicePlan {
	if endpoints == nil {
		return nil
	}
	p := &nftables.ServicePlan{Pools: []nftables.Pool{{Class: nftables.Class{Verdict: model.Reject}}},
		Frontends: []nftables.Frontend{{Key: nftables.Key{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80}}}}
	for _, n := range endpoints {
		p.Pools[0].Endpoints = append(p.Pools[0].Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
		p.Pools[0].Class = nftables.Class{N: len(endpoints)}
	}
	return p
}

func TestAssignDoesOnlyWhatChanges(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []int
		want          string
	}{
		{"nothing", []int{1, 2}, []int{1, 2}, ``},
		{"new Service", nil, []int{1, 2}, `
1: +ep(1->10.0.0.1) +slot(0->1) +ep(2->10.0.0.2) +slot(1->2) +count(1, forward)
2: +svc(random over 2)`},
		{"an endpoint gets another address: its element only", []int{1, 2, 3}, []int{1, 3, 9}, `
1: -ep(2) +ep(2->10.0.0.9)`},
		{"one more: its slot, then the class", []int{1, 2}, []int{1, 2, 3}, `
1: +ep(3->10.0.0.3) +slot(2->3)
2: -svc +svc(random over 3)`},
		{"one less: the last slot moves into the hole, then the class, then what is over", []int{1, 2, 3}, []int{2, 3}, `
1: -slot(0) +slot(0->3)
2: -svc +svc(random over 2)
3: -ep(1) -slot(2)`},
		{"the last one less", []int{1, 2, 3}, []int{1, 2}, `
2: -svc +svc(random over 2)
3: -slot(2) -ep(3)`},
		{"none left: the figure of what was forwarded stays", []int{1}, []int{}, `
1: +count(1, reject)
2: -svc +svc(reject)
3: -slot(0) -ep(1)`},
		{"the first one", []int{}, []int{1}, `
1: +ep(1->10.0.0.1) +slot(0->1) +count(1, forward)
2: -svc +svc(random over 1)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKernelInWords()
			if c.before != nil {
				k.assign(t, false, c.before...)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), k.assign(t, false, c.after...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceThatIsGoneIsDeletedByReapOnly(t *testing.T) {
	k := newKernelInWords()
	k.assign(t, false, 1, 2)
	if got := k.assign(t, false, []int(nil)...); got != "" {
		t.Errorf("without reap: %s", got)
	}
	want := "2: -svc\n3: -slot(0) -ep(1) -slot(1) -ep(2) -count(1, forward)"
	if diff := cmp.Diff(want, k.assign(t, true, []int(nil)...)); diff != "" {
		t.Error(diff)
	}
	if len(k.ledger.services)+len(k.ledger.keys)+len(k.ledger.pools)+len(k.state.slots)+len(k.state.eps) > 0 {
		t.Errorf("left behind: %+v %+v", k.ledger, k.state)
	}
}

func TestIdsAreNeverGivenTwice(t *testing.T) {
	k := newKernelInWords()
	seen := map[uint32]bool{}
	for range 3 {
		k.assign(t, false, 1, 2)
		for id := range k.state.eps {
			if seen[id] {
				t.Errorf("endpoint id %d was given before", id)
			}
			seen[id] = true
		}
		k.assign(t, true, []int(nil)...)
	}
}

func TestIdsBeginAnewWithOneThatIsFree(t *testing.T) {
	k := newKernelInWords()
	k.assign(t, false, 1) // endpoint 1 of pool 1
	k.state.lastEndpoint, k.state.lastPool = math.MaxUint32-1, math.MaxUint32
	want := `
1: +ep(4294967295->10.0.0.2) +slot(1->4294967295) +ep(2->10.0.0.3) +slot(2->2)
2: -svc +svc(random over 3)`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), k.assign(t, false, 1, 2, 3)); diff != "" {
		t.Error(diff)
	}
	c := newChange()
	other := planOf([]int{7})
	other.Frontends[0].Addr = netip.MustParseAddr("10.96.0.2")
	if _, err := k.assigner.assign(c, model.ServiceName{Namespace: "default", Name: "other"}, other, false); err != nil {
		t.Fatal(err)
	}
	if k.ledger.pools[2] == nil || len(k.ledger.pools) != 2 {
		t.Errorf("pools are %v, want 1 and 2", k.ledger.pools)
	}
}

func TestAServiceOfMoreEndpointsThanAPoolCanHaveFails(t *testing.T) {
	k := newKernelInWords()
	p := planOf([]int{1})
	p.Pools[0].Endpoints = make([]netip.AddrPort, maxSlots+1)
	c := newChange()
	_, err := k.assigner.assign(c, model.ServiceName{Namespace: "default", Name: "web"}, p, false)
	var large *TooLargeError
	if !errors.As(err, &large) || c.len() > 0 || len(k.ledger.services)+len(k.ledger.keys) > 0 {
		t.Errorf("err %v, %d operations, held %+v", err, c.len(), k.ledger)
	}
}

func TestPoolIsRepairedFromAnyState(t *testing.T) {
	for name, spoil := range map[string]func(s *State, pool uint32){
		"slot missing":               func(s *State, p uint32) { s.apply(Element{Set: setSlot, Pool: p, Slot: 1}, true) },
		"endpoint missing":           func(s *State, p uint32) { s.apply(Element{Set: setEp, Endpoint: 2}, true) },
		"slot twice to one endpoint": func(s *State, p uint32) { s.apply(Element{Set: setSlot, Pool: p, Slot: 1, Endpoint: 1}, false) },
		"slot to nowhere":            func(s *State, p uint32) { s.apply(Element{Set: setSlot, Pool: p, Slot: 0, Endpoint: 77}, false) },
		"slot too many":              func(s *State, p uint32) { s.apply(Element{Set: setSlot, Pool: p, Slot: 3, Endpoint: 3}, false) },
		"two endpoints of one address": func(s *State, p uint32) {
			s.apply(Element{Set: setEp, Endpoint: 2, Target: netip.MustParseAddrPort("10.0.0.1:80")}, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernelInWords()
			k.assign(t, false, 1, 2, 3)
			spoil(k.state, 1)
			k.assign(t, false, 1, 2, 3)
			var got []string
			for _, ep := range k.state.slots[1] {
				got = append(got, k.state.eps[ep].Addr().String())
			}
			slices.Sort(got)
			if diff := cmp.Diff([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestElementsSurviveEncoding(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")
	for f, a := range map[*family]netip.Addr{&ipv4: v4, &ipv6: v6} {
		key := nftables.Key{Scope: model.Inside, Addr: a, Protocol: model.UDP, Port: 53}
		for _, e := range []Element{
			{Set: setSvc, Key: key, Pool: 7, Class: class{n: 3, seconds: 10800, guarded: true}, Label: "default/dns dns/udp Cluster"},
			{Set: setSlot, Pool: 7, Slot: 2, Endpoint: 9},
			{Set: setEp, Endpoint: 9, Target: netip.AddrPortFrom(a, 8080)},
			{Set: setAllow, Pool: 7, Prefix: netip.PrefixFrom(a, 24).Masked()},
			{Set: setMasq, Key: key},
			{Set: setHairpin, Key: nftables.Key{Addr: a}},
			{Set: setVIP, Key: nftables.Key{Addr: a}},
			{Set: setPass, Key: nftables.Key{Addr: a}},
			{Set: setCount, Pool: 7, Verdict: model.Drop},
			uncounted,
		} {
			enc := encoder{family: f}
			if got, ok := f.decode(e.Set, enc.whole(e)); !ok || got != e {
				t.Errorf("%s: got %v, %t", e, got, ok)
			}
		}
	}
}
