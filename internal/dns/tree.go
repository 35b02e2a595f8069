package dns

import (
	"hash/maphash"
	"iter"
	"slices"
)

const (
	rootBits   = 7
	branchBits = 6
	fanOut     = 1 << branchBits
)

// tree is one state of all names. It is immutable; an edit copies the path to the shards that it touches, a few hundred
// bytes for each. So a reader that holds a tree sees one revision in all its look-ups, and a change costs the same at
// any size.
type tree struct {
	zone     *zone
	seed     maphash.Seed
	branches [1 << rootBits]*branch // by the first bits of the hash of a name
	names    int
	revision uint64
	complete bool   // false: what is not found may exist
	edits    uint64 // grows with every edit
}

type branch struct {
	edit   uint64         // that made it
	shards [fanOut]*shard // by the next bits
}

// shard is a small open-addressed hash table; the length is a power of two and at least a quarter is free.
type shard struct {
	edit  uint64 // that made it
	slots []slot
	n     int
}

type slot struct {
	hash uint64
	e    *entry // nil: free
}

func (t *tree) find(name []byte) *entry {
	h := maphash.Bytes(t.seed, name)
	s := t.shard(h)
	if s == nil {
		return nil
	}
	mask := len(s.slots) - 1
	for i := int(h) & mask; s.slots[i].e != nil; i = (i + 1) & mask {
		if o := &s.slots[i]; o.hash == h && o.e.name == string(name) {
			return o.e
		}
	}
	return nil
}

// shard is where the names with a hash are, nil when there are none.
func (t *tree) shard(h uint64) *shard {
	b := t.branches[h>>(64-rootBits)]
	if b == nil {
		return nil
	}
	return b.shards[h>>(64-rootBits-branchBits)%fanOut]
}

// all goes over the names in no order.
func (t *tree) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for _, b := range t.branches {
			if b == nil {
				continue
			}
			for _, s := range b.shards {
				if s == nil {
					continue
				}
				for _, o := range s.slots {
					if o.e != nil && !yield(o.e) {
						return
					}
				}
			}
		}
	}
}

// copy makes a shard of an edit's own with room for one more.
func (s *shard) copy(edit uint64) *shard {
	if s == nil {
		return &shard{edit: edit, slots: make([]slot, 4)}
	}
	c := &shard{edit: edit, slots: s.slots, n: s.n}
	if c.grow(); len(c.slots) == len(s.slots) {
		c.slots = slices.Clone(s.slots)
	}
	return c
}

// grow doubles the table when one more entry would leave less than a quarter free.
func (s *shard) grow() {
	if (s.n+1)*4 <= len(s.slots)*3 {
		return
	}
	old := s.slots
	s.slots = make([]slot, 2*len(old))
	for _, o := range old {
		if o.e != nil {
			s.slots[s.index(o.hash, o.e.name)] = o
		}
	}
}

// index is the slot of a name, or the free one where it belongs.
func (s *shard) index(h uint64, name string) int {
	mask := len(s.slots) - 1
	i := int(h) & mask
	for s.slots[i].e != nil && (s.slots[i].hash != h || s.slots[i].e.name != name) {
		i = (i + 1) & mask
	}
	return i
}

// remove empties slot i and moves up those behind it which would no longer be found.
func (s *shard) remove(i int) {
	mask := len(s.slots) - 1
	s.n--
	for j := (i + 1) & mask; ; j = (j + 1) & mask {
		o := s.slots[j]
		if o.e == nil {
			break
		}
		if home := int(o.hash) & mask; (j-home)&mask >= (j-i)&mask {
			s.slots[i], i = o, j
		}
	}
	s.slots[i] = slot{}
}

// edit is a change to a tree which is not yet published. It belongs to one goroutine.
type edit struct{ t *tree }

func (t *tree) edit() *edit {
	c := *t
	c.edits++
	return &edit{t: &c}
}

// shard is the shard of a hash, as a copy of this edit's own.
func (e *edit) shard(h uint64) *shard {
	b := &e.t.branches[h>>(64-rootBits)]
	switch {
	case *b == nil:
		*b = &branch{edit: e.t.edits}
	case (*b).edit != e.t.edits:
		c := **b
		c.edit = e.t.edits
		*b = &c
	}
	s := &(*b).shards[h>>(64-rootBits-branchBits)%fanOut]
	if *s == nil || (*s).edit != e.t.edits {
		*s = (*s).copy(e.t.edits)
	} else {
		(*s).grow()
	}
	return *s
}

// put sets the entry of a name. The entry is given away.
func (e *edit) put(n *entry) {
	h := maphash.String(e.t.seed, n.name)
	s := e.shard(h)
	i := s.index(h, n.name)
	if s.slots[i].e == nil {
		s.n++
		e.t.names++
	}
	s.slots[i] = slot{h, n}
}

func (e *edit) delete(name string) {
	h := maphash.String(e.t.seed, name)
	s := e.shard(h)
	if i := s.index(h, name); s.slots[i].e != nil {
		s.remove(i)
		e.t.names--
	}
}

// find looks at the state of the edit.
func (e *edit) find(name string) *entry {
	h := maphash.String(e.t.seed, name)
	s := e.t.shard(h)
	if s == nil {
		return nil
	}
	return s.slots[s.index(h, name)].e
}
