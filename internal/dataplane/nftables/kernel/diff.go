//go:build linux

package kernel

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"minato/internal/model"
	"minato/internal/nfnl"
)

// Difference is something in the kernel that is not as it was programmed.
type Difference struct {
	Kind    DifferenceKind
	Table   string // "ip minato"
	What    string // the element or the rules
	Service model.ServiceName
}

// DifferenceKind says in which way.
type DifferenceKind string

// The kinds of Difference.
const (
	Missing DifferenceKind = "missing"
	Extra   DifferenceKind = "extra"
	Changed DifferenceKind = "changed"
)

func (d Difference) String() string {
	s := fmt.Sprintf("%s in %s: %s", d.Kind, d.Table, d.What)
	if d.Service != (model.ServiceName{}) {
		s += fmt.Sprintf(" (%s)", d.Service)
	}
	return s
}

// Diff compares the kernel with what was programmed. It reads every element and changes nothing.
func (a *Applier) Diff(ctx context.Context) ([]Difference, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.diff(ctx)
}

// Observe looks whether somebody else changed the tables; if so, what differs is logged, and the next Program puts it
// right. As long as the generation of the namespace's ruleset shows that nobody but this Applier committed anything,
// it costs one small request; now and then all is compared even so.
func (a *Applier) Observe(ctx context.Context) (differs bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost || a.outdated() {
		return false, nil // the next Program reads or writes all again
	}
	if due, err := a.kernel.due(); err != nil || !due {
		return false, err
	}
	start := time.Now()
	if err := a.kernel.begin(); err != nil {
		return false, err
	}
	found, err := a.diff(ctx)
	if err != nil {
		a.kernel.known = false
		return false, err
	}
	if len(found) == 0 {
		return false, a.kernel.end(start)
	}
	a.metrics.repairs.Inc()
	const shown = 10
	for _, d := range found[:min(shown, len(found))] {
		a.cfg.Log.Warn("nftables are not as they were programmed and are repaired", "namespace", a.cfg.Netns.String(),
			"difference", d.String(), "differences", len(found))
	}
	return true, a.observe()
}

func (a *Applier) diff(ctx context.Context) (out []Difference, err error) {
	for _, t := range a.tables {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if t.outdated {
			out = append(out, t.difference(Changed, "rules of another version, until the first complete snapshot"))
			continue
		}
		found, err := t.diff()
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func (t *table) difference(k DifferenceKind, what string) Difference {
	return Difference{Kind: k, Table: t.id.String() + " " + t.table, What: what}
}

func (t *table) diff() (out []Difference, err error) {
	static, classes, err := t.wrongRules()
	if err != nil {
		return nil, err
	}
	for _, c := range static {
		out = append(out, t.difference(Changed, "rules of chain "+c))
	}
	for _, c := range classes {
		out = append(out, t.difference(Changed, "rules of chain "+c.chain()))
	}
	for _, set := range nodeSets {
		same, err := t.sameNodeSet(set)
		if err != nil {
			return nil, err
		}
		if !same {
			out = append(out, t.difference(Changed, "set "+string(set)))
		}
	}
	for _, set := range stateSets {
		found, err := t.diffSet(set)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// sameNodeSet compares a set that is always written whole.
func (t *table) sameNodeSet(set SetName) (bool, error) {
	if t.node == nil {
		return true, nil // not written yet
	}
	raw := func(e nfnl.Element) string { return fmt.Sprintf("%x %x %t %t", e.Key, e.Data, e.CatchAll, e.End) }
	var have, want []string
	err := t.kernel.Elements(t.id, t.table, string(set), func() { have = have[:0] }, func(e nfnl.Element) { have = append(have, raw(e)) })
	for _, e := range t.node[set] {
		want = append(want, raw(e))
	}
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want), ignoreMissing(err)
}

// diffSet compares sums of hashes first, which takes no memory, and elements only if those differ.
func (t *table) diffSet(set SetName) ([]Difference, error) {
	seed := maphash.MakeSeed()
	var have, want uint64
	foreign := 0
	err := t.each(set, func() { have, foreign = 0, 0 },
		func(e Element) { have += maphash.Comparable(seed, e) }, func(nfnl.Element) { foreign++ })
	if err != nil {
		return nil, err
	}
	for e := range t.state.elements(set) {
		want += maphash.Comparable(seed, e)
	}
	if have == want && foreign == 0 {
		return nil, nil
	}
	return t.listDifferences(set)
}

func (t *table) listDifferences(set SetName) ([]Difference, error) {
	var kernel map[Element]Element
	var out []Difference
	err := t.each(set, func() { kernel, out = map[Element]Element{}, nil },
		func(e Element) { kernel[e.key()] = e },
		func(n nfnl.Element) {
			out = append(out, t.difference(Extra, fmt.Sprintf("%s %x: %x", set, bytes.Clone(n.Key), bytes.Clone(n.Data))))
		})
	if err != nil {
		return nil, err
	}
	owner := t.owners()
	for want := range t.state.elements(set) {
		have, ok := kernel[want.key()]
		delete(kernel, want.key())
		var d Difference
		switch {
		case !ok:
			d = t.difference(Missing, want.String())
		case have != want:
			d = t.difference(Changed, fmt.Sprintf("%s, should be %s", have, want))
		default:
			continue
		}
		d.Service = owner(want)
		out = append(out, d)
	}
	for _, e := range kernel {
		out = append(out, t.difference(Extra, e.String()))
	}
	slices.SortFunc(out, func(a, b Difference) int { return cmp.Compare(a.String(), b.String()) })
	return out, nil
}

// owners says whose an element is, as far as one Service has it for itself.
func (t *table) owners() func(Element) model.ServiceName {
	endpoints := map[uint32]*holding{}
	for id, slots := range t.state.slots {
		for _, ep := range slots {
			endpoints[ep] = t.ledger.pools[id]
		}
	}
	return func(e Element) model.ServiceName {
		var h *holding
		switch e.Set {
		case setSvc, setMasq:
			h = t.ledger.keys[e.Key]
		case setSlot:
			h = t.ledger.pools[e.Pool]
		case setEp:
			h = endpoints[e.Endpoint]
		}
		if h == nil {
			return model.ServiceName{}
		}
		return h.name
	}
}
