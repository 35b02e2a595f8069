package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newOrdered() ordered[int, string] {
	return ordered[int, string]{compare: cmp.Compare[int], hash: func(k int) uint64 { return hashString(fmt.Sprint(k)) }}
}

// version is one state of the map under test beside a Go map of the same content.
type version struct {
	tree ordered[int, string]
	want map[int]string
}

func (v version) check(t *rapid.T) {
	keys := slices.Sorted(maps.Keys(v.want))
	var got []int
	for k, s := range v.tree.all() {
		got = append(got, k)
		if s != v.want[k] {
			t.Fatalf("key %d is %q, want %q", k, s, v.want[k])
		}
	}
	if !slices.Equal(got, keys) || v.tree.size != len(keys) {
		t.Fatalf("keys %v (size %d), want %v", got, v.tree.size, keys)
	}
	for k := range 20 {
		s, ok := v.tree.get(k)
		if want, has := v.want[k]; s != want || ok != has {
			t.Fatalf("get(%d) is %q, %t", k, s, ok)
		}
	}
}

func drawVersions(t *rapid.T) []version {
	history := []version{{newOrdered(), map[int]string{}}}
	for range rapid.IntRange(0, 40).Draw(t, "operations") {
		from := history[rapid.IntRange(0, len(history)-1).Draw(t, "from")]
		next := version{from.tree, maps.Clone(from.want)}
		k := rapid.IntRange(0, 19).Draw(t, "key")
		if rapid.Bool().Draw(t, "delete") {
			next.tree = next.tree.delete(k)
			delete(next.want, k)
		} else {
			v := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "value")
			next.tree = next.tree.set(k, v)
			next.want[k] = v
		}
		history = append(history, next)
	}
	return history
}

func TestOrderedIsAMapWhoseOldVersionsStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, v := range drawVersions(t) {
			v.check(t)
		}
	})
}

func TestOrderedHasOneShapeForOneContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := drawVersions(t)
		last := history[len(history)-1]
		again := newOrdered()
		for _, k := range rapid.Permutation(slices.Sorted(maps.Keys(last.want))).Draw(t, "order") {
			again = again.set(k, last.want[k])
		}
		if a, b := shape(last.tree.root), shape(again.root); a != b {
			t.Fatalf("shapes %s and %s", a, b)
		}
	})
}

func shape(n *treapNode[int, string]) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("(%s%d%s)", shape(n.left), n.key, shape(n.right))
}

func TestOrderedDiffIsThatOfBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := drawVersions(t)
		pick := rapid.IntRange(0, len(history)-1)
		a, b := history[pick.Draw(t, "from")], history[pick.Draw(t, "to")]
		var got, want []string
		b.tree.diff(a.tree.root, b.tree.root, func(k int, old, new string) {
			got = append(got, fmt.Sprintf("%d %s>%s", k, old, new))
		})
		for k := range 20 {
			if a.want[k] != b.want[k] {
				want = append(want, fmt.Sprintf("%d %s>%s", k, a.want[k], b.want[k]))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("diff %v, want %v", got, want)
		}
	})
}

func TestOrderedDiffCostsWhatChanged(t *testing.T) {
	const n = 100_000
	m := newOrdered()
	for k := range n {
		m = m.set(k, "x")
	}
	next := m.set(n/2, "y").delete(n/3).set(n+1, "new")
	compared := 0
	m.compare = func(a, b int) int { compared++; return cmp.Compare(a, b) }
	changes := 0
	m.diff(m.root, next.root, func(int, string, string) { changes++ })
	if changes != 3 || compared > 500 {
		t.Errorf("%d changes found by %d comparisons of %d keys", changes, compared, n)
	}
}

func TestOrderedSetOfTheSameValueChangesNothing(t *testing.T) {
	m := newOrdered().set(1, "x").set(2, "y")
	if m.set(1, "x").root != m.root || m.delete(3).root != m.root {
		t.Error("the tree was copied")
	}
}
