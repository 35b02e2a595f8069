//go:build linux

// Package nfnltest is an nf_tables in memory: it takes the batches of package nfnl, applies them whole or not at
// all, can be listed like the kernel's, and runs packets through its rules.
//
// It panics where a batch breaks nf_tables' format (lengths, types, chains that lead nowhere), because no such
// batch may ever be built; it answers with the kernel's error numbers where the state does not fit. With Faults it
// fails on purpose. It has the parts of nf_tables that minato uses; time does not pass in it.
package nfnltest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// Kernel is one namespace's nf_tables. It is safe for concurrent use.
type Kernel struct {
	// Faults decides what happens to the next commit; nil: nothing special.
	Faults func() Fault
	// Committed is called after every batch that was applied, with the kernel unlocked.
	Committed func()

	mu     sync.Mutex
	tables map[nfnl.Family]map[string]*table
	handle uint64
	gen    uint32
	undo   []func()
}

// Fault is what goes wrong with a commit.
type Fault int

// The faults.
const (
	None    Fault = iota
	Refused       // not applied, ENOMEM
	Lost          // applied, but the answer is lost
	Vanish        // not applied, and the answer is lost
)

type table struct {
	comment string
	chains  map[string]*chain
	sets    map[string]*set
}

type chain struct {
	nfnl.Chain
	rules []*nfnl.Rule
	uses  int // rules and elements that lead here
}

type set struct {
	nfnl.Set
	elements map[string]element // by key; interval ends have their own
}

type element struct{ nfnl.Element }

// New makes an empty one.
func New() *Kernel {
	return &Kernel{tables: map[nfnl.Family]map[string]*table{}, gen: 1}
}

// Close does nothing: like the kernel's, the tables outlive the socket.
func (k *Kernel) Close() error { return nil }

// Commit applies a batch.
func (k *Kernel) Commit(b *nfnl.Batch) error {
	if b.Err() != nil || b.Len() == 0 {
		return b.Err()
	}
	fault := None
	if k.Faults != nil {
		fault = k.Faults()
	}
	err := k.apply(b, fault)
	if err == nil && k.Committed != nil {
		k.Committed()
	}
	if err == nil && fault == Lost {
		return nfnl.ErrUnknownOutcome
	}
	return err
}

func (k *Kernel) apply(b *nfnl.Batch, fault Fault) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch fault {
	case Refused:
		return &nfnl.Error{Errno: unix.ENOMEM, Index: -1, Message: "fault on purpose"}
	case Vanish:
		return nfnl.ErrUnknownOutcome
	}
	if e := b.Expected(); e != 0 && e != k.gen {
		return &nfnl.Error{Errno: nfnl.ErrOtherGeneration, Index: -1, Message: "commit"}
	}
	k.undo = nil
	i := 0
	for m := range b.Messages() {
		if errno := k.message(m); errno != 0 {
			for _, u := range slices.Backward(k.undo) {
				u()
			}
			return &nfnl.Error{Errno: errno, Index: i, Message: fmt.Sprintf("operation %d", m.Op)}
		}
		i++
	}
	if len(k.undo) > 0 {
		k.gen++
	}
	return nil
}

func (k *Kernel) onUndo(f func()) { k.undo = append(k.undo, f) }

// setKey puts v at key for the transaction; a nil del removes it.
func setKey[K comparable, V any](k *Kernel, m map[K]V, key K, v V) {
	old, had := m[key]
	k.onUndo(func() {
		if had {
			m[key] = old
		} else {
			delete(m, key)
		}
	})
	m[key] = v
}

func removeKey[K comparable, V any](k *Kernel, m map[K]V, key K) {
	old := m[key]
	k.onUndo(func() { m[key] = old })
	delete(m, key)
}

// Generation grows with every commit that changes something. It starts at 1.
func (k *Kernel) Generation() (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gen, nil
}

// Tables lists tables as nfnl.Conn does; so do the others.
func (k *Kernel) Tables(f nfnl.Family) ([]nfnl.Table, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []nfnl.Table
	for _, n := range slices.Sorted(maps.Keys(k.tables[f])) {
		out = append(out, nfnl.Table{Family: f, Name: n, Comment: k.tables[f][n].comment})
	}
	return out, nil
}

// Chains lists the chains of a table.
func (k *Kernel) Chains(f nfnl.Family, name string) ([]nfnl.Chain, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []nfnl.Chain
	if t := k.tables[f][name]; t != nil {
		for _, n := range slices.Sorted(maps.Keys(t.chains)) {
			out = append(out, t.chains[n].Chain)
		}
	}
	return out, nil
}

// Rules lists the rules of a chain, or of all.
func (k *Kernel) Rules(f nfnl.Family, name, only string) ([]nfnl.Rule, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []nfnl.Rule
	if t := k.tables[f][name]; t != nil {
		for _, n := range slices.Sorted(maps.Keys(t.chains)) {
			for _, r := range t.chains[n].rules {
				if only == "" || only == n {
					out = append(out, *r)
				}
			}
		}
	}
	return out, nil
}

// Sets lists the sets of a table.
func (k *Kernel) Sets(f nfnl.Family, name string) ([]nfnl.Set, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []nfnl.Set
	if t := k.tables[f][name]; t != nil {
		for _, n := range slices.Sorted(maps.Keys(t.sets)) {
			out = append(out, t.sets[n].Set)
		}
	}
	return out, nil
}

// Elements lists the elements of a set, sorted by key.
func (k *Kernel) Elements(f nfnl.Family, name, setName string, restart func(), yield func(nfnl.Element)) error {
	k.mu.Lock()
	var es []nfnl.Element
	t := k.tables[f][name]
	missing := t == nil || t.sets[setName] == nil
	if !missing {
		for _, key := range slices.Sorted(maps.Keys(t.sets[setName].elements)) {
			es = append(es, t.sets[setName].elements[key].Element)
		}
	}
	k.mu.Unlock()
	if missing {
		return fmt.Errorf("list %s %s: %w", name, setName, unix.ENOENT)
	}
	restart()
	for _, e := range es {
		yield(e)
	}
	return nil
}

// Element looks up one element by its key.
func (k *Kernel) Element(f nfnl.Family, name, setName string, key []byte) (e nfnl.Element, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tables[f][name]
	if t == nil || t.sets[setName] == nil {
		return e, false, nil
	}
	x, ok := t.sets[setName].elements[elementKey(nfnl.Element{Key: key})]
	return x.Element, ok, nil
}

// Count is the number of a set's elements.
func (k *Kernel) Count(f nfnl.Family, name, setName string) (n int, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tables[f][name]
	if t == nil || t.sets[setName] == nil {
		return 0, false, nil
	}
	return len(t.sets[setName].elements), true, nil
}

// Dump prints chains, rules by their comments, and elements, sorted. Two kernels that behave alike print alike.
func (k *Kernel) Dump() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, f := range slices.Sorted(maps.Keys(k.tables)) {
		for _, n := range slices.Sorted(maps.Keys(k.tables[f])) {
			fmt.Fprintf(&b, "table %s %s %q\n", f, n, k.tables[f][n].comment)
			k.tables[f][n].dump(&b)
		}
	}
	return b.String()
}

func (t *table) dump(b *strings.Builder) {
	for _, n := range slices.Sorted(maps.Keys(t.sets)) {
		fmt.Fprintf(b, " set %s\n", n)
		for _, key := range slices.Sorted(maps.Keys(t.sets[n].elements)) {
			e := t.sets[n].elements[key]
			fmt.Fprintf(b, "  %x%x: %x", e.Key, e.KeyEnd, e.Data)
			if e.Verdict != nil {
				fmt.Fprintf(b, "%s", e.Verdict.Chain)
			}
			b.WriteByte('\n')
		}
	}
	for _, n := range slices.Sorted(maps.Keys(t.chains)) {
		fmt.Fprintf(b, " chain %s %s\n", n, t.chains[n].Type)
		for _, r := range t.chains[n].rules {
			fmt.Fprintf(b, "  %s\n", r.Comment)
		}
	}
}

func clone(e nfnl.Element) nfnl.Element {
	e.Key, e.KeyEnd, e.Data = bytes.Clone(e.Key), bytes.Clone(e.KeyEnd), bytes.Clone(e.Data)
	return e
}
