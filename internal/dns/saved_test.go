package dns

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	"pgregory.net/rapid"

	"minato/internal/model"
)

func saved(t testing.TB, table *Table) []byte {
	t.Helper()
	return state(t, table).Append(nil, nil)
}

func state(t testing.TB, table *Table) *State {
	t.Helper()
	s := table.State()
	if s == nil {
		t.Fatal("a complete table has no state")
	}
	return s
}

func restored(t testing.TB, b ...[]byte) *Table {
	t.Helper()
	table := newTable(t)
	if err := table.Restore(b...); err != nil {
		t.Fatal(err)
	}
	return table
}

func TestARestoredTableIsTheOneThatWasSavedAndGoesOnToTheNext(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		first := drawWorld(r, drawWorld(r, model.Empty()))
		table := tableOf(t, first)
		held := model.ServiceName{Namespace: "a", Name: "x"}
		if rapid.Bool().Draw(r, "held") {
			first = drawWorld(r, first)
			table.Withdraw(context.Background(), first)
			table.Publish(context.Background(), first, func(n model.ServiceName) bool { return n == held })
		}
		again := restored(t, saved(t, table))
		if diff := cmp.Diff(dump(table.View()), dump(again.View())); diff != "" {
			r.Fatalf("restored:\n%s", diff)
		}
		next := drawWorld(r, first)
		if err := errors.Join(again.Withdraw(context.Background(), next), again.Publish(context.Background(), next, nil)); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(dump(tableOf(t, next).View()), dump(again.View())); diff != "" {
			r.Fatalf("then published:\n%s", diff)
		}
	})
}

func TestARestoredTableIsTheOneWhoseChangesWereSaved(t *testing.T) {
	options := []Options{{}, {NoEndpoints: true}, {Namespaces: []string{"a"}}, {TTL: 30}}
	rapid.Check(t, func(r *rapid.T) {
		world := drawWorld(r, model.Empty())
		table := tableOf(t, world)
		last := state(t, table)
		parts, option := [][]byte{last.Append(nil, nil)}, Options{}
		for range rapid.IntRange(1, 5).Draw(r, "changes") {
			switch rapid.IntRange(0, 4).Draw(r, "what") {
			case 0:
				option = rapid.SampledFrom(options).Draw(r, "options")
				table.SetOptions(option)
			case 1:
				world = world.On(&model.Node{Name: rapid.SampledFrom([]string{"n1", "n2"}).Draw(r, "node"), Zone: rapid.SampledFrom([]string{"z1", "z2"}).Draw(r, "zone")})
			default:
				world = drawWorld(r, world)
			}
			held := rapid.SampledFrom([]string{"a/x", "b/y", "-"}).Draw(r, "held")
			table.Withdraw(context.Background(), world)
			if rapid.Bool().Draw(r, "published") {
				table.Publish(context.Background(), world, func(n model.ServiceName) bool { return n.String() == held })
			}
			now := state(t, table)
			if b := now.Append(nil, last); len(b) > 0 {
				parts = append(parts, b)
			}
			last = now
		}
		again := restored(t, parts...)
		again.SetOptions(option)
		if diff := cmp.Diff(dump(table.View()), dump(again.View())); diff != "" {
			r.Fatalf("restored:\n%s", diff)
		}
	})
}

func TestWhatIsSavedOfANodeThatMovedIsTheOrderOfAnswers(t *testing.T) {
	a, b := ready("10.244.0.1", ""), ready("10.244.0.2", "")
	a.Zone, b.Zone = "z1", "z2"
	s := service("default/db", "None", nil, a, b)
	s.PreferSameZone = true
	world := with(model.Empty(), s, service("default/web", "10.96.0.1", []string{"http/tcp/80"}))
	table := tableOf(t, world.On(&model.Node{Name: "n", Zone: "z1"}))
	before := state(t, table)
	if err := table.Publish(context.Background(), with(world).On(&model.Node{Name: "n", Zone: "z2"}), nil); err != nil {
		t.Fatal(err)
	}
	again := restored(t, before.Append(nil, nil), state(t, table).Append(nil, before))
	if diff := cmp.Diff(dump(table.View()), dump(again.View())); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsSavedOfAChangeIsAsMuchAsChanged(t *testing.T) {
	world := bigWorld(2000)
	table := tableOf(t, world)
	before := state(t, table)
	publish := func(w *model.Snapshot) []byte {
		if err := errors.Join(table.Withdraw(context.Background(), w), table.Publish(context.Background(), w, nil)); err != nil {
			t.Fatal(err)
		}
		return state(t, table).Append(nil, before)
	}
	if b := publish(with(world)); len(b) > 0 {
		t.Errorf("%d bytes of nothing", len(b))
	}
	all, one := len(before.Append(nil, nil)), len(publish(with(world, numbered(7, 1))))
	if one == 0 || one*1000 > all {
		t.Errorf("one Service of 2000 has %d bytes of %d", one, all)
	}
	if gone := len(publish(without(world, "ns-0/svc-00007"))); gone == 0 || gone >= one {
		t.Errorf("a Service that is gone has %d bytes, one that changed %d", gone, one)
	}
}

func TestARestoredTableIsServedUntilTheFirstCompleteSnapshot(t *testing.T) {
	old := with(model.Empty(), service("default/web", "10.96.0.1", []string{"http/tcp/80"}), service("default/gone", "10.96.0.2", []string{"http/tcp/80"}))
	table := restored(t, saved(t, tableOf(t, old)))
	look := func(name string) string {
		return brief(ask(t, table.View(), name+".default.svc.cluster.local.", mdns.TypeA, maxMessage, 0))
	}
	const web, gone, missing = "web.default.svc.cluster.local. 5 A 10.96.0.1", "gone.default.svc.cluster.local. 5 A 10.96.0.2", "NXDOMAIN of cluster.local."
	for when, next := range map[string]*model.Snapshot{"nothing was read": nil, "a part was read": model.Empty().With(func(e *model.Edit) {
		e.SetService(service("default/new", "10.96.0.3", []string{"http/tcp/80"}))
	})} {
		if next != nil {
			if err := errors.Join(table.Withdraw(context.Background(), next), table.Publish(context.Background(), next, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if got := [3]string{look("web"), look("gone"), look("new")}; got != [3]string{web, gone, missing} {
			t.Errorf("%s: %q", when, got)
		}
	}
	next := with(model.Empty(), service("default/web", "10.96.0.9", []string{"http/tcp/80"}))
	if err := table.Withdraw(context.Background(), next); err != nil {
		t.Fatal(err)
	}
	if got := [2]string{look("web"), look("gone")}; got != [2]string{web, missing} {
		t.Errorf("withdrawn: %q", got)
	}
	if err := table.Publish(context.Background(), next, func(n model.ServiceName) bool { return n.Name == "web" }); err != nil || look("web") != web {
		t.Errorf("held: %s (%v), want what was restored", look("web"), err)
	}
	if err := table.Publish(context.Background(), next, nil); err != nil || look("web") != "web.default.svc.cluster.local. 5 A 10.96.0.9" {
		t.Errorf("published: %s (%v)", look("web"), err)
	}
}

func TestTheNameServerIsRestored(t *testing.T) {
	table := restored(t, saved(t, tableOf(t, with(model.Empty(), service("kube-system/kube-dns", "10.96.0.10", []string{"dns/udp/53"})))))
	if got, want := brief(ask(t, table.View(), "cluster.local.", mdns.TypeNS, maxMessage, 0)), "cluster.local. 5 NS kube-dns.kube-system.svc.cluster.local.\n+ kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWhatIsNoTableIsNotRestored(t *testing.T) {
	good := saved(t, tableOf(t, with(model.Empty(), service("default/web", "10.96.0.1", []string{"http/tcp/80"}, ready("10.244.0.1", "http/tcp/80")))))
	for n := range good {
		table := newTable(t)
		if err := table.Restore(good[:n]); !errors.Is(err, ErrSaved) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
		if ok, _ := table.Ready(); ok {
			t.Fatalf("cut to %d bytes: something was restored", n)
		}
	}
	other, err := NewTable(Zone{Domain: "other.domain"})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(good); !errors.Is(err, ErrSaved) {
		t.Errorf("of another domain: %v", err)
	}
	if err := tableOf(t, model.Empty().With(func(e *model.Edit) { e.SetComplete() })).Restore(good); err == nil {
		t.Error("a table in use was overwritten")
	}
	if err := newTable(t).Restore(); !errors.Is(err, ErrSaved) {
		t.Errorf("nothing: %v", err)
	}
	if newTable(t).State() != nil {
		t.Error("a table has a state before it is complete")
	}
}

func FuzzRestore(f *testing.F) {
	world := with(model.Empty(), service("default/web", "10.96.0.1", []string{"http/tcp/80"}, called("h", ready("10.244.0.1", "http/tcp/80"))), external("a/x", "example.com"))
	table := tableOf(f, world)
	all := state(f, table)
	if err := table.Publish(context.Background(), without(with(world, service("default/web", "None", nil, ready("10.244.0.2", ""))), "a/x"), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(all.Append(nil, nil), state(f, table).Append(nil, all))
	f.Fuzz(func(t *testing.T, all, change []byte) {
		table := newTable(t)
		if table.Restore(all, change) == nil {
			table.View().Records() // what was accepted can be read
		}
	})
}
