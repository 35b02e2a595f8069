package dns

import "hash/maphash"

const (
	shardBits  = 10
	shardCount = 1 << shardBits
)

// tree is one state of all names. It is immutable; an edit copies the array of shards and the shards that it touches.
// So a reader that holds a tree sees one revision in all its look-ups, and a change costs the same at any size.
type tree struct {
	zone     *zone
	seed     maphash.Seed
	shards   [shardCount]*shard
	names    int
	revision uint64
	complete bool // false: what is not found may exist
}

// shard is a small open-addressed hash table; the length is a power of two and at least a quarter is free.
type shard struct {
	slots []*entry
	n     int
}

func (t *tree) find(name []byte) *entry {
	h := maphash.Bytes(t.seed, name)
	s := t.shards[h>>(64-shardBits)]
	if s == nil {
		return nil
	}
	mask := len(s.slots) - 1
	for i := int(h) & mask; s.slots[i] != nil; i = (i + 1) & mask {
		if e := s.slots[i]; e.hash == h && e.name == string(name) {
			return e
		}
	}
	return nil
}

// copy makes a shard of its own with room for one more.
func (s *shard) copy() *shard {
	if s == nil {
		return &shard{slots: make([]*entry, 4)}
	}
	c := &shard{slots: append([]*entry(nil), s.slots...), n: s.n}
	c.grow()
	return c
}

// grow doubles the table when one more entry would leave less than a quarter free.
func (s *shard) grow() {
	if (s.n+1)*4 <= len(s.slots)*3 {
		return
	}
	old := s.slots
	s.slots = make([]*entry, 2*len(old))
	for _, e := range old {
		if e != nil {
			s.slots[s.index(e.hash, e.name)] = e
		}
	}
}

// index is the slot of a name, or the free one where it belongs.
func (s *shard) index(h uint64, name string) int {
	mask := len(s.slots) - 1
	i := int(h) & mask
	for s.slots[i] != nil && (s.slots[i].hash != h || s.slots[i].name != name) {
		i = (i + 1) & mask
	}
	return i
}

// remove empties slot i and moves up those behind it which would no longer be found.
func (s *shard) remove(i int) {
	mask := len(s.slots) - 1
	s.n--
	for j := (i + 1) & mask; ; j = (j + 1) & mask {
		e := s.slots[j]
		if e == nil {
			break
		}
		if home := int(e.hash) & mask; (j-home)&mask >= (j-i)&mask {
			s.slots[i], i = e, j
		}
	}
	s.slots[i] = nil
}

// edit is a change to a tree which is not yet published. It belongs to one goroutine.
type edit struct {
	t     *tree
	owned [shardCount]bool // shards that are copies of this edit's own
}

func (t *tree) edit() *edit {
	c := *t
	return &edit{t: &c}
}

func (e *edit) shard(h uint64) *shard {
	i := h >> (64 - shardBits)
	if !e.owned[i] {
		e.t.shards[i] = e.t.shards[i].copy()
		e.owned[i] = true
	} else {
		e.t.shards[i].grow()
	}
	return e.t.shards[i]
}

// put sets the entry of a name. The entry is given away.
func (e *edit) put(n *entry) {
	n.hash = maphash.String(e.t.seed, n.name)
	s := e.shard(n.hash)
	i := s.index(n.hash, n.name)
	if s.slots[i] == nil {
		s.n++
		e.t.names++
	}
	s.slots[i] = n
}

func (e *edit) delete(name string) {
	h := maphash.String(e.t.seed, name)
	s := e.shard(h)
	if i := s.index(h, name); s.slots[i] != nil {
		s.remove(i)
		e.t.names--
	}
}

// find looks at the state of the edit.
func (e *edit) find(name string) *entry {
	h := maphash.String(e.t.seed, name)
	s := e.t.shards[h>>(64-shardBits)]
	if s == nil {
		return nil
	}
	return s.slots[s.index(h, name)]
}
