package model

import "iter"

// ordered is a persistent ordered map: a treap whose priorities come from the key, so that equal contents have one
// shape whatever the order of insertion. set and delete copy the path to the root and share the rest. Two versions
// are compared in time proportional to their difference, by skipping shared subtrees.
type ordered[K any, V comparable] struct {
	root    *treapNode[K, V]
	size    int
	compare func(a, b K) int
	hash    func(K) uint64
}

type treapNode[K any, V comparable] struct {
	key         K
	value       V
	priority    uint64
	left, right *treapNode[K, V]
}

func (m ordered[K, V]) get(k K) (v V, ok bool) {
	for n := m.root; n != nil; {
		switch c := m.compare(k, n.key); {
		case c == 0:
			return n.value, true
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return v, false
}

func (m ordered[K, V]) set(k K, v V) ordered[K, V] {
	if old, ok := m.get(k); ok {
		if old == v {
			return m
		}
	} else {
		m.size++
	}
	m.root = m.insert(m.root, k, v, m.hash(k))
	return m
}

func (m ordered[K, V]) insert(n *treapNode[K, V], k K, v V, priority uint64) *treapNode[K, V] {
	if n == nil {
		return &treapNode[K, V]{key: k, value: v, priority: priority}
	}
	c := m.compare(k, n.key)
	if c == 0 {
		cp := *n
		cp.value = v
		return &cp
	}
	if above(priority, k, n, m.compare) {
		l, r := m.split(n, k)
		return &treapNode[K, V]{key: k, value: v, priority: priority, left: l, right: r}
	}
	cp := *n
	if c < 0 {
		cp.left = m.insert(n.left, k, v, priority)
	} else {
		cp.right = m.insert(n.right, k, v, priority)
	}
	return &cp
}

// above reports whether a new entry belongs over n: by priority, and by key where two hashes are equal.
func above[K any, V comparable](priority uint64, k K, n *treapNode[K, V], compare func(a, b K) int) bool {
	if priority != n.priority {
		return priority > n.priority
	}
	return compare(k, n.key) < 0
}

func (m ordered[K, V]) split(n *treapNode[K, V], k K) (l, r *treapNode[K, V]) {
	if n == nil {
		return nil, nil
	}
	cp := *n
	if m.compare(k, n.key) < 0 {
		l, cp.left = m.split(n.left, k)
		return l, &cp
	}
	cp.right, r = m.split(n.right, k)
	return &cp, r
}

func (m ordered[K, V]) delete(k K) ordered[K, V] {
	if _, ok := m.get(k); !ok {
		return m
	}
	m.root = m.remove(m.root, k)
	m.size--
	return m
}

func (m ordered[K, V]) remove(n *treapNode[K, V], k K) *treapNode[K, V] {
	c := m.compare(k, n.key)
	if c == 0 {
		return m.join(n.left, n.right)
	}
	cp := *n
	if c < 0 {
		cp.left = m.remove(n.left, k)
	} else {
		cp.right = m.remove(n.right, k)
	}
	return &cp
}

func (m ordered[K, V]) join(l, r *treapNode[K, V]) *treapNode[K, V] {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	case above(l.priority, l.key, r, m.compare):
		cp := *l
		cp.right = m.join(l.right, r)
		return &cp
	default:
		cp := *r
		cp.left = m.join(l, r.left)
		return &cp
	}
}

func (m ordered[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { m.root.walk(yield) }
}

func (n *treapNode[K, V]) walk(yield func(K, V) bool) bool {
	return n == nil || n.left.walk(yield) && yield(n.key, n.value) && n.right.walk(yield)
}

// walkFrom is walk for the keys that are not before first.
func (n *treapNode[K, V]) walkFrom(first K, compare func(a, b K) int, yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	if compare(n.key, first) < 0 {
		return n.right.walkFrom(first, compare, yield)
	}
	return n.left.walkFrom(first, compare, yield) && yield(n.key, n.value) && n.right.walk(yield)
}

// diff calls changed for every key whose value differs between from and to, in key order. The zero V stands for
// absent. Shared subtrees are not visited.
func (m ordered[K, V]) diff(from, to *treapNode[K, V], changed func(k K, old, new V)) {
	var zero V
	switch {
	case from == to:
	case from == nil:
		to.walk(func(k K, v V) bool { changed(k, zero, v); return true })
	case to == nil:
		from.walk(func(k K, v V) bool { changed(k, v, zero); return true })
	case m.compare(from.key, to.key) == 0:
		m.diff(from.left, to.left, changed)
		if from.value != to.value {
			changed(to.key, from.value, to.value)
		}
		m.diff(from.right, to.right, changed)
	case above(from.priority, from.key, to, m.compare):
		m.diffAt(from, to, func(l, r *treapNode[K, V]) {
			m.diff(from.left, l, changed)
			changed(from.key, from.value, zero)
			m.diff(from.right, r, changed)
		})
	default:
		m.diffAt(to, from, func(l, r *treapNode[K, V]) {
			m.diff(l, to.left, changed)
			changed(to.key, zero, to.value)
			m.diff(r, to.right, changed)
		})
	}
}

// diffAt splits the tree other at the key of the higher root. That key is not in other: its place would be at the
// root of other's shape too, since shape follows from the keys alone.
func (m ordered[K, V]) diffAt(higher, other *treapNode[K, V], f func(l, r *treapNode[K, V])) {
	f(m.split(other, higher.key))
}
