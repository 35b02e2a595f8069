package apply

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"minato/internal/model"
	"minato/internal/status"
)

// newLoop is a Loop over one fake dataplane and one fake DNS of a universe.
func newLoop(src Source, u *universe, programs, publishes fault) (*Loop, *fakeProgrammer, *fakePublisher) {
	p := &fakeProgrammer{universe: u, fails: programs}
	d := &fakePublisher{universe: u, fails: publishes}
	return New(Config{
		Source: src, Node: model.Node{Name: "node1"}, Programmers: []Programmer{p}, Publishers: []Publisher{d},
		Board: &status.Board{}, Log: slog.New(slog.DiscardHandler),
	}), p, d
}

func complete(services ...*model.Service) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		for _, s := range services {
			e.SetService(s)
		}
	})
}

func board(l *Loop) string {
	var lines []string
	for _, e := range l.cfg.Board.Entries() {
		line := e.Component
		if e.Converged() {
			line += " ok"
		}
		lines = append(lines, strings.TrimSpace(line+" "+e.Error))
	}
	return strings.Join(lines, "\n")
}

// Random changes of Services and their addresses, every step of every phase failing now and then. The universe
// checks the promise after each step; once faults end, everything must be reached.
func TestANameNeverResolvesToAnAddressThatIsNotProgrammed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		faults := true
		inject := func(step string) bool {
			return faults && rapid.IntRange(0, 9).Draw(t, step) == 0
		}
		u := newUniverse(t.Fatalf)
		l, _, _ := newLoop(nil, u, inject, inject)
		s := complete()
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			s = s.With(func(e *model.Edit) {
				for range rapid.IntRange(0, 3).Draw(t, "changes") {
					name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service")
					at := rapid.SliceOfNDistinct(rapid.IntRange(1, 4), 0, 2, rapid.ID).Draw(t, "addresses")
					if rapid.Bool().Draw(t, "delete") {
						e.DeleteService(svcName(name))
					} else {
						e.SetService(svc(name, at...))
					}
				}
			})
			l.round(t.Context(), s.On(&model.Node{Name: "node1"}))
		}
		faults = false
		if !l.round(t.Context(), s.On(&model.Node{Name: "node1"})) {
			t.Fatalf("not reached without faults:\n%s", board(l))
		}
		want := map[model.ServiceName]addrs{}
		for svc := range s.Services() {
			want[svc.Name] = wanted(s, svc.Name)
		}
		if describe(u.programmed) != describe(want) || describe(u.named) != describe(want) {
			t.Fatalf("programmed %s\nnamed      %s\nwant       %s", describe(u.programmed), describe(u.named), describe(want))
		}
	})
}

func TestAServiceThatFailsIsHeldAndTheOthersGoOn(t *testing.T) {
	u := newUniverse(t.Fatalf)
	bad := true
	l, _, _ := newLoop(nil, u, func(step string) bool { return bad && step == "program bad" }, never)
	node := &model.Node{Name: "node1"}
	next := complete(svc("good", 1), svc("bad", 2)).On(node)
	if l.round(t.Context(), next) {
		t.Error("the round says that everything was reached")
	}
	if got := describe(u.named); got != "[good=10.96.0.1]" {
		t.Errorf("named %s", got)
	}
	if got, want := board(l), "dataplane default/bad: injected fault\ndns 1 Services keep their previous records until they are programmed"; got != want {
		t.Errorf("board:\n%s\nwant:\n%s", got, want)
	}
	bad = false
	if !l.round(t.Context(), next) || describe(u.named) != "[bad=10.96.0.2 good=10.96.0.1]" || board(l) != "dataplane ok\ndns ok" {
		t.Errorf("after the repair: named %s, board:\n%s", describe(u.named), board(l))
	}
}

func TestAHeldServiceKeepsItsRecords(t *testing.T) {
	u := newUniverse(t.Fatalf)
	bad := false
	l, _, _ := newLoop(nil, u, func(step string) bool { return bad && step == "program a" }, never)
	node := &model.Node{Name: "node1"}
	s := complete(svc("a", 1))
	l.round(t.Context(), s.On(node))
	bad = true
	for _, at := range [][]int{{1, 2}, {2}} {
		s = s.With(func(e *model.Edit) { e.SetService(svc("a", at...)) })
		l.round(t.Context(), s.On(node))
		if got := describe(u.named); got != "[a=10.96.0.1]" {
			t.Errorf("at %v: named %s, want the previous record", at, got)
		}
	}
}

func TestADataplaneThatFailsAsAWholeHoldsOnlyWhatItServes(t *testing.T) {
	u := newUniverse(func(string, ...any) {}) // the fake's headless Service is not programmed, and need not be
	l, _, _ := newLoop(nil, u, func(step string) bool { return step == "program all" }, never)
	headless := svc("headless", 9)
	headless.Proxied = false
	l.round(t.Context(), complete(svc("a", 1), headless).On(&model.Node{Name: "node1"}))
	if got := describe(u.named); got != "[headless=10.96.0.9]" {
		t.Errorf("named %s", got)
	}
	if got, want := board(l), "dataplane programming: injected fault\ndns 1 Services keep their previous records until they are programmed"; got != want {
		t.Errorf("board:\n%s\nwant:\n%s", got, want)
	}
}

func TestNothingIsReapedBeforeItIsWithdrawn(t *testing.T) {
	u := newUniverse(t.Fatalf)
	stuck := false
	l, _, _ := newLoop(nil, u, never, func(step string) bool { return stuck && (step == "withdraw" || step == "publish") })
	node := &model.Node{Name: "node1"}
	l.round(t.Context(), complete(svc("a", 1), svc("b", 2)).On(node))
	stuck = true
	gone := complete(svc("b", 2)).On(node)
	l.round(t.Context(), gone)
	if got := describe(u.programmed); got != "[a=10.96.0.1 b=10.96.0.2]" {
		t.Errorf("programmed %s: a name still leads there", got)
	}
	want := "dataplane what is gone stays programmed until it is withdrawn everywhere\ndns withdrawing: injected fault; publishing: injected fault"
	if got := board(l); got != want {
		t.Errorf("board:\n%s\nwant:\n%s", got, want)
	}
	stuck = false
	if !l.round(t.Context(), gone) || describe(u.programmed) != "[b=10.96.0.2]" {
		t.Errorf("after the repair: programmed %s", describe(u.programmed))
	}
}

func TestManyFailuresAreToldInShort(t *testing.T) {
	f := failedError{}
	for _, n := range []string{"e", "d", "c", "b", "a"} {
		f[svcName(n)] = errInjected
	}
	want := "default/a: injected fault; default/b: injected fault; default/c: injected fault; and 2 more Services"
	if got := f.Error(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAPublisherThatHasWithdrawnHoldsNothingUp(t *testing.T) {
	for _, c := range []struct {
		err    error
		reaped bool
	}{{fmt.Errorf("listening: %w", ErrWithdrawn), true}, {errInjected, false}} {
		u := newUniverse(t.Fatalf)
		l, p, d := newLoop(nil, u, never, never)
		l.cfg.Publishers = append(l.cfg.Publishers, incomplete{d, c.err})
		node := &model.Node{Name: "node1"}
		l.round(t.Context(), complete(svc("a", 1), svc("b", 2)).On(node))
		if l.round(t.Context(), complete(svc("a", 1)).On(node)) {
			t.Errorf("%v: the round counts as a success", c.err)
		}
		if there := len(p.programmed[svcName("b")]) > 0; there == c.reaped {
			t.Errorf("%v: what is gone is still programmed: %t", c.err, there)
		}
	}
}

// incomplete is a Publisher that cannot publish everything.
type incomplete struct {
	*fakePublisher
	err error
}

func (i incomplete) Publish(context.Context, *model.Snapshot, func(model.ServiceName) bool) error {
	return i.err
}
