//go:build linux

package kernel

import (
	"fmt"
	"slices"

	"minato/internal/dataplane/nftables"
	"minato/internal/nfnl"
)

// batchLimit is the number of elements after which a group of Services is committed, so that nobody else waits long
// for the kernel's lock.
const batchLimit = 20000

// table is the table of one family.
type table struct {
	ruleset
	kernel Kernel
	assigner
	enc   encoder
	list  []nfnl.Element // of one set, as the encoder made it
	batch *nfnl.Batch
	// outdated: the kernel has a table of this name with other rules. The first commit replaces it.
	outdated bool
	node     map[SetName][]nfnl.Element // contents of the sets that depend on the node alone

	remembered affinity
}

func newTable(k Kernel, f *family, name string, clients int) *table {
	t := &table{ruleset: ruleset{f, name, clients}, kernel: k, enc: encoder{family: f}, batch: nfnl.NewBatch()}
	t.assigner = assigner{ipv6: f.ipv6, state: newState(), ledger: newLedger()}
	return t
}

// commit sends a change, step by step, and keeps the state with it. An error leaves the state as the kernel is,
// unless it is nfnl.ErrUnknownOutcome.
func (t *table) commit(c *change) error {
	t.finish(c)
	if t.outdated {
		return t.replaceTable(c)
	}
	for step := range c.steps {
		b := t.batch
		b.Reset()
		if step == prepare {
			t.addClasses(b, c.classes)
		}
		t.encodeStep(b, &c.steps[step])
		if b.Len() == 0 {
			continue
		}
		if err := t.kernel.Commit(b); err != nil {
			return err
		}
		t.took(c, step)
	}
	for _, f := range c.done {
		f()
	}
	return nil
}

// tidy gives up the memory that a large change needed.
func (t *table) tidy() {
	const usual = 1000 // elements
	if cap(t.list) > usual {
		t.enc.buf, t.list, t.batch = nil, nil, nfnl.NewBatch()
	}
}

// took brings the state up to a step which the kernel has taken.
func (t *table) took(c *change, step int) {
	if step == prepare {
		for cl := range c.classes {
			t.state.apply(Element{Set: setClass, Class: cl}, false)
		}
	}
	for _, e := range c.steps[step].del {
		t.state.apply(e, true)
	}
	for _, e := range c.steps[step].add {
		t.state.apply(e, false)
	}
}

// replaceTable puts the present rules with all elements in the place of an outdated table, in one transaction.
func (t *table) replaceTable(c *change) error {
	b := nfnl.NewBatch()
	b.DeleteTable(t.id, t.table)
	t.install(b)
	t.encodeNode(b, nodeSets...)
	t.addClasses(b, c.classes)
	for step := range c.steps {
		t.encodeStep(b, &c.steps[step])
	}
	if err := t.kernel.Commit(b); err != nil {
		return fmt.Errorf("replace outdated table %s %s: %w", t.id, t.table, err)
	}
	t.outdated = false
	t.state.installed()
	for step := range c.steps {
		t.took(c, step)
	}
	for _, f := range c.done {
		f()
	}
	return nil
}

// encodeStep writes the operations set by set, which takes fewer messages. A class goes with its chain.
func (t *table) encodeStep(b *nfnl.Batch, o *operations) {
	t.enc.buf = t.enc.buf[:0]
	gather := func(from []Element, set SetName, encode func(Element) nfnl.Element) []nfnl.Element {
		t.list = t.list[:0]
		for _, e := range from {
			if e.Set == set {
				t.list = append(t.list, encode(e))
			}
		}
		return t.list
	}
	for _, set := range stateSets {
		b.DeleteElements(t.id, t.table, string(set), gather(o.del, set, t.enc.key)...)
	}
	for _, set := range stateSets {
		elements := gather(o.add, set, t.enc.whole)
		if set == setEp {
			t.countEndpoints(elements)
		}
		b.AddElements(t.id, t.table, string(set), elements...)
	}
	t.deleteChains(b, o.del)
}

// addClasses makes class chains, those first to which others lead.
func (t *table) addClasses(b *nfnl.Batch, classes map[class]bool) {
	for _, guarded := range []bool{false, true} {
		for c := range classes {
			if c.guarded == guarded {
				t.addClass(b, c)
			}
		}
	}
}

// deleteChains deletes the chains of classes that are deleted. All are emptied first: one may lead to another.
func (t *table) deleteChains(b *nfnl.Batch, del []Element) {
	for _, remove := range []func(f nfnl.Family, table, chain string){b.FlushChain, b.DeleteChain} {
		for _, e := range del {
			if e.Set == setClass {
				remove(t.id, t.table, e.Class.chain())
			}
		}
	}
}

// setNode writes what depends on the node alone, in one transaction; sets that are right already are left alone.
func (t *table) setNode(p nftables.NodePlan, cfg Config) error {
	t.node = t.nodeElements(p, cfg)
	if t.outdated {
		return nil // goes with the table that replaces this one
	}
	b := nfnl.NewBatch()
	for _, set := range nodeSets {
		same, err := t.sameNodeSet(set)
		if err != nil {
			return err
		}
		if !same {
			t.encodeNode(b, set)
		}
	}
	if err := t.kernel.Commit(b); err != nil {
		return fmt.Errorf("write the node's own addresses to table %s %s: %w", t.id, t.table, err)
	}
	return nil
}

func (t *table) encodeNode(b *nfnl.Batch, sets ...SetName) {
	for _, set := range sets {
		b.FlushSet(t.id, t.table, string(set))
		b.AddElements(t.id, t.table, string(set), t.node[set]...)
	}
}

func (t *table) remove() error {
	tables, err := t.kernel.Tables(t.id)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(tables, func(x nfnl.Table) bool { return x.Name == t.table }) {
		return nil
	}
	b := nfnl.NewBatch()
	b.DeleteTable(t.id, t.table)
	return t.kernel.Commit(b)
}
