//go:build linux

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// stateSets are the sets that a State mirrors.
var stateSets = []SetName{setSvc, setClass, setSlot, setEp, setAllow, setMasq, setHairpin, setVIP, setLB, setPass, setCount}

// observe reads the table from the kernel, and makes it if there is none. The ledger starts anew: what is held has
// to be claimed again.
func (t *table) observe() error {
	tables, err := t.kernel.Tables(t.id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tables, func(x nfnl.Table) bool { return x.Name == t.table })
	t.outdated = i >= 0 && tables[i].Comment != t.stamp()
	before := t.state
	t.state, t.ledger = newState(), newLedger()
	t.state.lastPool, t.state.lastEndpoint = before.lastPool, before.lastEndpoint
	if t.outdated {
		return nil
	}
	if i >= 0 {
		if err := t.read(); err != nil {
			return err
		}
	}
	if err := t.repairRules(); err != nil {
		return err
	}
	for k, v := range t.state.svc {
		t.ledger.orphans[v.pool] = append(t.ledger.orphans[v.pool], k)
	}
	return nil
}

// read fills the state from the kernel. Elements that cannot be ours are deleted.
func (t *table) read() error {
	b := nfnl.NewBatch()
	for _, set := range stateSets {
		var es []Element
		var foreign []nfnl.Element
		err := t.each(set, func() { es, foreign = es[:0], nil },
			func(e Element) { es = append(es, e) },
			func(n nfnl.Element) {
				foreign = append(foreign, nfnl.Element{Key: bytes.Clone(n.Key), KeyEnd: bytes.Clone(n.KeyEnd), CatchAll: n.CatchAll})
			})
		if err != nil {
			return err
		}
		for _, e := range es {
			t.state.apply(e, false)
		}
		b.DeleteElements(t.id, t.table, string(set), foreign...)
	}
	if err := t.readAffinity(); err != nil {
		return err
	}
	if err := t.kernel.Commit(b); err != nil {
		return fmt.Errorf("delete foreign elements from table %s %s: %w", t.id, t.table, err)
	}
	return nil
}

// each dumps a set. Elements that the encoder cannot have made go to foreign.
func (t *table) each(set SetName, restart func(), yield func(Element), foreign func(nfnl.Element)) error {
	var enc encoder
	err := t.kernel.Elements(t.id, t.table, string(set), restart, func(n nfnl.Element) {
		e, ok := t.decode(set, n)
		enc = encoder{family: t.family, buf: enc.buf[:0]}
		if ok && bytes.Equal(enc.key(e).Key, n.Key) {
			yield(e)
		} else {
			foreign(n)
		}
	})
	return ignoreMissing(err)
}

// ignoreMissing takes a set that is not there for an empty one. It is made with the rules.
func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// readAffinity learns which endpoint ids are remembered for clients. They must not be given to other endpoints.
// Packets change this set all the time: what stays in it is seen by one of the dumps, so the last need not be whole.
func (t *table) readAffinity() error {
	err := t.kernel.Elements(t.id, t.table, string(setAff), func() {}, func(n nfnl.Element) {
		d := reader{f: t.family, b: n.Data}
		d.number()
		t.state.lastEndpoint = max(t.state.lastEndpoint, d.number())
	})
	if errors.Is(err, nfnl.ErrChanged) {
		return nil
	}
	return ignoreMissing(err)
}

// repairRules puts chains and rules back where they are not what they should be. Class chains that are not right are
// forgotten, and made again when a frontend needs them.
func (t *table) repairRules() error {
	static, classes, err := t.wrongRules()
	if err != nil {
		return err
	}
	for _, c := range classes {
		delete(t.state.classes, c)
	}
	if len(static) == 0 && t.state.classes[rejected] && t.state.classes[dropped] && t.state.counts[count{}] {
		return nil
	}
	b := nfnl.NewBatch()
	t.install(b)
	if err := t.kernel.Commit(b); err != nil {
		return fmt.Errorf("install rules in table %s %s: %w", t.id, t.table, err)
	}
	t.state.installed()
	return nil
}

// wrongRules compares the rules of each chain, by order and comment, with what they should be. It returns the static
// chains and the classes where they differ.
func (t *table) wrongRules() (static []string, classes []class, err error) {
	chains, err := t.kernel.Chains(t.id, t.table)
	if err != nil {
		return nil, nil, err
	}
	rules, err := t.kernel.Rules(t.id, t.table, "")
	if err = ignoreMissing(err); err != nil {
		return nil, nil, err
	}
	have := comments(rules)
	want := comments(t.static())
	for _, c := range t.ruleset.chains() {
		if !slices.Contains(chains, c) || !slices.Equal(have[c.Name], want[c.Name]) {
			static = append(static, c.Name)
		}
	}
	for c := range t.state.classes {
		if c != rejected && c != dropped && !slices.Equal(have[c.chain()], comments(t.classRules(c))[c.chain()]) {
			classes = append(classes, c)
		}
	}
	return static, classes, nil
}

func comments(rules []nfnl.Rule) map[string][]string {
	out := map[string][]string{}
	for _, r := range rules {
		out[r.Chain] = append(out[r.Chain], r.Comment)
	}
	return out
}
