//go:build linux

package nfnl_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

// nftables is what the kernel's and the one in memory have in common.
type nftables interface {
	Commit(*nfnl.Batch) error
	Generation() (uint32, error)
	Tables(nfnl.Family) ([]nfnl.Table, error)
	Chains(f nfnl.Family, table string) ([]nfnl.Chain, error)
	Rules(f nfnl.Family, table, chain string) ([]nfnl.Rule, error)
	Sets(f nfnl.Family, table string) ([]nfnl.Set, error)
	Elements(f nfnl.Family, table, set string, restart func(), yield func(nfnl.Element)) error
	Element(f nfnl.Family, table, set string, key []byte) (e nfnl.Element, ok bool, err error)
	Count(f nfnl.Family, table, set string) (n int, ok bool, err error)
}

// both runs a test in the kernel and in memory, which have to behave alike.
func both(t *testing.T, test func(t *testing.T, c nftables)) {
	t.Run("kernel", func(t *testing.T) { test(t, open(t)) })
	t.Run("memory", func(t *testing.T) { test(t, nfnltest.New()) })
}

// open makes an empty namespace for the test and opens a connection in it.
func open(t *testing.T) *nfnl.Conn {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	path := filepath.Join(t.TempDir(), "netns")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	c, err := nfnl.Open(netns.At(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const table = "t"

// commit builds and commits a batch.
func commit(t *testing.T, c nftables, build func(b *nfnl.Batch)) error {
	t.Helper()
	b := nfnl.NewBatch()
	build(b)
	return c.Commit(b)
}

func mustCommit(t *testing.T, c nftables, build func(b *nfnl.Batch)) {
	t.Helper()
	if err := commit(t, c, build); err != nil {
		t.Fatal(err)
	}
}

func numbers(t *testing.T, c nftables) nfnl.Set {
	t.Helper()
	s := nfnl.Set{Family: nfnl.IPv4, Table: table, Name: "numbers", Flags: nfnl.Map,
		KeyType: nfnl.TypeMark, KeyLen: 4, DataType: nfnl.TypeMark, DataLen: 4}
	mustCommit(t, c, func(b *nfnl.Batch) {
		b.AddTable(nfnl.Table{Family: nfnl.IPv4, Name: table, Comment: "stamp 1"})
		b.AddSet(s)
	})
	return s
}

func dump(t *testing.T, c nftables, set string) map[string]string {
	t.Helper()
	var got map[string]string
	err := c.Elements(nfnl.IPv4, table, set, func() { got = map[string]string{} }, func(e nfnl.Element) {
		got[fmt.Sprintf("%x", e.Key)] = fmt.Sprintf("%x", e.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatIsCommittedIsInTheDump(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		set := numbers(t, c)
		chain := nfnl.Chain{Family: nfnl.IPv4, Table: table, Name: "pre", Type: "nat", Hook: nfnl.Prerouting, Priority: nfnl.PriorityDNAT}
		rule := nfnl.Rule{Family: nfnl.IPv4, Table: table, Chain: "pre", Comment: "a comment", Exprs: []nfnl.Expr{
			nfnl.Meta(nfnl.MetaIIFName, nfnl.R(0)),
			nfnl.Cmp(nfnl.Equal, nfnl.R(0), nfnl.InterfaceName("eth0")),
			nfnl.Decide(nfnl.Verdict{Code: nfnl.Accept}),
		}}
		mustCommit(t, c, func(b *nfnl.Batch) { b.AddChain(chain); b.AddRule(rule) })

		tables, err := c.Tables(nfnl.IPv4)
		if diff := cmp.Diff([]nfnl.Table{{Family: nfnl.IPv4, Name: table, Comment: "stamp 1"}}, tables); err != nil || diff != "" {
			t.Errorf("tables: %v\n%s", err, diff)
		}
		chains, err := c.Chains(nfnl.IPv4, table)
		if diff := cmp.Diff([]nfnl.Chain{chain}, chains); err != nil || diff != "" {
			t.Errorf("chains: %v\n%s", err, diff)
		}
		sets, err := c.Sets(nfnl.IPv4, table)
		if diff := cmp.Diff([]nfnl.Set{set}, sets); err != nil || diff != "" {
			t.Errorf("sets: %v\n%s", err, diff)
		}
		rules, err := c.Rules(nfnl.IPv4, table, "pre")
		if err != nil || len(rules) != 1 {
			t.Fatalf("rules: %v %v", rules, err)
		}
		rule.Handle = rules[0].Handle
		// the kernel writes registers and nesting in its own way, so steps are compared by name
		names := cmp.Transformer("name", func(e nfnl.Expr) string { return e.Name })
		if diff := cmp.Diff(rule, rules[0], names); diff != "" {
			t.Errorf("rules:\n%s", diff)
		}
	})
}

func TestElementsAreCountedWithoutAList(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		if n, ok, err := c.Count(nfnl.IPv4, table, "numbers"); n != 0 || ok || err != nil {
			t.Errorf("of a set that is not there: %d, %t, %v", n, ok, err)
		}
		numbers(t, c)
		if _, ok, _ := c.Count(nfnl.IPv4, table, "numbers"); !ok {
			t.Skip("this kernel does not count elements")
		}
		element := func(i uint32) nfnl.Element {
			return nfnl.Element{Key: nfnl.Number(i), Data: nfnl.Number(i)}
		}
		for i := range uint32(3) {
			mustCommit(t, c, func(b *nfnl.Batch) { b.AddElements(nfnl.IPv4, table, "numbers", element(i)) })
			if n, ok, err := c.Count(nfnl.IPv4, table, "numbers"); n != int(i)+1 || !ok || err != nil {
				t.Errorf("after %d: %d, %t, %v", i+1, n, ok, err)
			}
		}
		mustCommit(t, c, func(b *nfnl.Batch) { b.DeleteElements(nfnl.IPv4, table, "numbers", element(1)) })
		if n, _, err := c.Count(nfnl.IPv4, table, "numbers"); n != 2 || err != nil {
			t.Errorf("after one was deleted: %d, %v", n, err)
		}
	})
}

func TestInsertedRuleComesFirstAndIsDeletedByHandle(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		rule := func(comment string) nfnl.Rule {
			return nfnl.Rule{Family: nfnl.IPv4, Table: table, Chain: "c", Comment: comment, Exprs: []nfnl.Expr{nfnl.Counter()}}
		}
		comments := func() (out []string) {
			rules, err := c.Rules(nfnl.IPv4, table, "c")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rules {
				out = append(out, r.Comment)
			}
			return out
		}
		mustCommit(t, c, func(b *nfnl.Batch) {
			b.AddChain(nfnl.Chain{Family: nfnl.IPv4, Table: table, Name: "c"})
			b.AddRule(rule("appended"))
			b.InsertRule(rule("inserted"))
		})
		if diff := cmp.Diff([]string{"inserted", "appended"}, comments()); diff != "" {
			t.Fatal(diff)
		}
		rules, _ := c.Rules(nfnl.IPv4, table, "c")
		mustCommit(t, c, func(b *nfnl.Batch) { b.DeleteRule(rules[0]) })
		if diff := cmp.Diff([]string{"appended"}, comments()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestManyElementsAreSplitIntoMessages(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		const n = 20000
		b := nfnl.NewBatch()
		es := make([]nfnl.Element, n)
		for i := range es {
			es[i] = nfnl.Element{Key: nfnl.Number(uint32(i)), Data: nfnl.Number(uint32(2 * i))}
		}
		b.AddElements(nfnl.IPv4, table, "numbers", es...)
		if b.Len() < 2 {
			t.Errorf("%d messages for %d elements", b.Len(), n)
		}
		if err := c.Commit(b); err != nil {
			t.Fatal(err)
		}
		got := dump(t, c, "numbers")
		if len(got) != n || got[fmt.Sprintf("%x", nfnl.Number(77))] != fmt.Sprintf("%x", nfnl.Number(154)) {
			t.Errorf("%d elements, 77 is %s", len(got), got[fmt.Sprintf("%x", nfnl.Number(77))])
		}
	})
}

// A set's hash table grows some time after the commit, and reorders a dump that is under way.
func TestDumpOfAGrowingSetIsWhole(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		const step, steps = 1000, 40
		for i := range steps {
			mustCommit(t, c, func(b *nfnl.Batch) {
				es := make([]nfnl.Element, step)
				for j := range es {
					es[j] = nfnl.Element{Key: nfnl.Number(uint32(i*step + j)), Data: nfnl.Number(1)}
				}
				b.AddElements(nfnl.IPv4, table, "numbers", es...)
			})
			if got := len(dump(t, c, "numbers")); got != (i+1)*step {
				t.Fatalf("%d elements of %d", got, (i+1)*step)
			}
		}
	})
}

func TestRefusalNamesTheMessageAndUndoesTheBatch(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		err := commit(t, c, func(b *nfnl.Batch) {
			b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(1)})
			b.DeleteElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(99)})
			b.AddElements(nfnl.IPv4, table, "nowhere", nfnl.Element{Key: nfnl.Number(1)})
		})
		var refusal *nfnl.Error
		if !errors.As(err, &refusal) || !errors.Is(err, unix.ENOENT) {
			t.Fatalf("got %v", err)
		}
		if _, real := c.(*nfnl.Conn); real && (refusal.Index != 1 || refusal.Message != "delete elements of ip t numbers" || refusal.Others != 1) {
			t.Errorf("got %+v", refusal)
		}
		if got := dump(t, c, "numbers"); len(got) != 0 {
			t.Errorf("left in the set: %v", got)
		}
	})
}

func TestElementWithOtherDataIsRefusedUnlessDeletedBefore(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		put := func(v uint32) nfnl.Element { return nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(v)} }
		mustCommit(t, c, func(b *nfnl.Batch) { b.AddElements(nfnl.IPv4, table, "numbers", put(1)) })
		mustCommit(t, c, func(b *nfnl.Batch) { b.AddElements(nfnl.IPv4, table, "numbers", put(1)) })
		if err := commit(t, c, func(b *nfnl.Batch) { b.AddElements(nfnl.IPv4, table, "numbers", put(2)) }); !errors.Is(err, unix.EEXIST) {
			t.Errorf("got %v, want EEXIST", err)
		}
		mustCommit(t, c, func(b *nfnl.Batch) {
			b.DeleteElements(nfnl.IPv4, table, "numbers", put(2))
			b.AddElements(nfnl.IPv4, table, "numbers", put(2))
		})
	})
}

func TestElementWithACounterIsToldApart(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		mustCommit(t, c, func(b *nfnl.Batch) {
			b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(10), Counted: true},
				nfnl.Element{Key: nfnl.Number(2), Data: nfnl.Number(20)})
		})
		for key, want := range map[uint32]bool{1: true, 2: false} {
			e, ok, err := c.Element(nfnl.IPv4, table, "numbers", nfnl.Number(key))
			if err != nil || !ok || e.Counted != want || e.Packets != 0 {
				t.Errorf("%d: %+v, %t, %v", key, e, ok, err)
			}
		}
	})
}

func TestElementKeepsItsComment(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		mustCommit(t, c, func(b *nfnl.Batch) {
			b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(1), Comment: "one"})
		})
		var got string
		err := c.Elements(nfnl.IPv4, table, "numbers", func() {}, func(e nfnl.Element) { got = e.Comment })
		if err != nil || got != "one" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestMistakesWhileBuildingComeOutAtCommit(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		err := commit(t, c, func(b *nfnl.Batch) {
			b.AddTable(nfnl.Table{Family: nfnl.IPv4, Name: ""})
			b.AddTable(nfnl.Table{Family: nfnl.IPv4, Name: "fine"})
		})
		if err == nil || !strings.Contains(err.Error(), "bad name") {
			t.Errorf("got %v", err)
		}
		if tables, _ := c.Tables(nfnl.IPv4); len(tables) != 0 {
			t.Errorf("committed all the same: %v", tables)
		}
	})
}

func TestRefusedCommitOfTheWholeBatchIsAnswered(t *testing.T) {
	c := open(t)
	numbers(t, c)
	loop := func(b *nfnl.Batch) { // two chains that jump to each other are refused at the end, not by a message
		for _, n := range []string{"a", "b"} {
			b.AddChain(nfnl.Chain{Family: nfnl.IPv4, Table: table, Name: n})
		}
		for _, n := range [][2]string{{"a", "b"}, {"b", "a"}} {
			b.AddRule(nfnl.Rule{Family: nfnl.IPv4, Table: table, Chain: n[0], Exprs: []nfnl.Expr{
				nfnl.Decide(nfnl.Verdict{Code: nfnl.Jump, Chain: n[1]})}})
		}
		b.AddChain(nfnl.Chain{Family: nfnl.IPv4, Table: table, Name: "base", Type: "filter", Hook: nfnl.Forward})
		b.AddRule(nfnl.Rule{Family: nfnl.IPv4, Table: table, Chain: "base", Exprs: []nfnl.Expr{
			nfnl.Decide(nfnl.Verdict{Code: nfnl.Jump, Chain: "a"})}})
	}
	if err := commit(t, c, loop); err == nil || errors.Is(err, nfnl.ErrUnknownOutcome) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestGenerationGrowsByOneWithEachChange(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		generation := func() uint32 {
			t.Helper()
			g, err := c.Generation()
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		element := func(b *nfnl.Batch) {
			b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(1)})
		}
		before := generation()
		mustCommit(t, c, element)
		if g := generation(); g != before+1 {
			t.Errorf("after a change: %d, was %d", g, before)
		}
		mustCommit(t, c, element)
		if g := generation(); g != before+1 {
			t.Errorf("after a batch that changed nothing: %d, was %d", g, before+1)
		}
	})
}

func TestDumpOfWhatIsNotThereIsNotFound(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		err := c.Elements(nfnl.IPv4, "none", "none", func() {}, func(nfnl.Element) {})
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
	})
}

func TestABatchForAnotherGenerationIsRefused(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		g, err := c.Generation()
		if err != nil {
			t.Fatal(err)
		}
		b := nfnl.NewBatch()
		b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: nfnl.Number(1), Data: nfnl.Number(1)})
		b.Expect(g - 1)
		var refusal *nfnl.Error
		if err := c.Commit(b); !errors.Is(err, nfnl.ErrOtherGeneration) || !errors.As(err, &refusal) {
			t.Errorf("got %v, want a refusal for the generation", err)
		}
		for _, expect := range []uint32{g, 0} {
			b.Expect(expect)
			if err := c.Commit(b); err != nil {
				t.Errorf("expecting %d at %d: %v", expect, g, err)
			}
		}
	})
}

func TestOneElementIsLookedUpByItsKey(t *testing.T) {
	both(t, func(t *testing.T, c nftables) {
		numbers(t, c)
		mustCommit(t, c, func(b *nfnl.Batch) {
			b.AddElements(nfnl.IPv4, table, "numbers", nfnl.Element{Key: []byte{1, 0, 0, 0}, Data: []byte{2, 0, 0, 0}, Comment: "one"})
		})
		if e, ok, err := c.Element(nfnl.IPv4, table, "numbers", []byte{1, 0, 0, 0}); err != nil || !ok || e.Data[0] != 2 || e.Comment != "one" {
			t.Errorf("got %+v, %t, %v", e, ok, err)
		}
		for _, missing := range []struct{ set, key string }{{"numbers", "\x09\x00\x00\x00"}, {"no such set", "\x01\x00\x00\x00"}} {
			if e, ok, err := c.Element(nfnl.IPv4, table, missing.set, []byte(missing.key)); err != nil || ok {
				t.Errorf("%q: got %+v, %t, %v", missing, e, ok, err)
			}
		}
	})
}
