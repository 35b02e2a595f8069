package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	"pgregory.net/rapid"

	"minato/internal/model"
)

// dump is everything in a table, for comparison.
func dump(v View) map[string]string {
	out := map[string]string{}
	for e := range v.tree.all() {
		out[text(e.name)] = fmt.Sprintf("%q %v %v %d", e.target, e.sets, e.pointers, e.refs)
	}
	if len(out) != v.tree.names {
		panic(fmt.Sprintf("%d names are in the table, and it says %d", len(out), v.tree.names))
	}
	return out
}

// drawWorld changes a few things of a small world: so few names and addresses that they collide.
func drawWorld(t *rapid.T, s *model.Snapshot) *model.Snapshot {
	name := func() model.ServiceName {
		return model.ServiceName{Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), Name: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")}
	}
	return s.With(func(e *model.Edit) {
		e.SetComplete()
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			switch n := name(); rapid.IntRange(0, 5).Draw(t, "change") {
			case 0:
				e.DeleteService(n)
			case 1:
				e.SetNamespace(n.Namespace, rapid.Bool().Draw(t, "exists"))
			case 2:
				s := external(n.String(), rapid.SampledFrom([]string{"www.example.com", "x.a.svc.cluster.local", "192.0.2.1"}).Draw(t, "target"))
				e.SetService(s)
			default:
				e.SetService(drawService(t, n))
			}
		}
	})
}

func drawService(t *rapid.T, n model.ServiceName) *model.Service {
	addr := rapid.SampledFrom([]string{"10.96.0.1", "10.96.0.2", "10.96.0.3", "fd00:10::1"})
	port := rapid.SampledFrom([]string{"http/tcp/80", "dns/udp/53", "dns/tcp/53", "/tcp/1"})
	s := service(n.String(), addr.Draw(t, "clusterIP"), rapid.SliceOfN(port, 1, 3).Draw(t, "ports"))
	if s.Headless = rapid.Bool().Draw(t, "headless"); s.Headless {
		s.ClusterIPs = nil
	}
	s.PreferSameZone = rapid.Bool().Draw(t, "prefer zone")
	for range rapid.IntRange(0, 5).Draw(t, "backends") {
		b := ready(rapid.SampledFrom([]string{"10.244.0.1", "10.244.0.2", "10.96.0.1", "fd00:20::1"}).Draw(t, "addr"), port.Draw(t, "port"))
		b.Hostname = rapid.SampledFrom([]string{"", "", "h0", "h1", "_tcp"}).Draw(t, "hostname")
		b.Zone = rapid.SampledFrom([]string{"z1", "z2"}).Draw(t, "zone")
		b.Ready = rapid.IntRange(0, 3).Draw(t, "ready") > 0
		s.Slices[0].Backends = append(s.Slices[0].Backends, b)
	}
	return s
}

func TestUpdatesEqualAFreshTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table := newTable(t)
		world := model.Empty().On(&model.Node{Name: "n", Zone: "z1"})
		ctx := context.Background()
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			world = drawWorld(rt, world)
			if rapid.IntRange(0, 9).Draw(rt, "move") == 0 {
				world = world.On(&model.Node{Name: "n", Zone: "z2"})
			}
			if rapid.Bool().Draw(rt, "withdraw") {
				must(t, table.Withdraw(ctx, world))
			}
			if rapid.IntRange(0, 3).Draw(rt, "lost") == 0 {
				continue // the round ended here, and the next one is about a newer snapshot
			}
			mask := rapid.IntRange(0, 7).Draw(rt, "held")
			must(t, table.Publish(ctx, world, func(n model.ServiceName) bool { return mask&(1<<(n.Name[0]-'x')) != 0 }))
		}
		must(t, table.Withdraw(ctx, world))
		must(t, table.Publish(ctx, world, nil))
		if d := cmp.Diff(dump(tableOf(t, world).View()), dump(table.View())); d != "" {
			rt.Fatalf("a fresh table (-) differs from the updated one (+):\n%s", d)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEmptyAgainAfterEverythingIsGone(t *testing.T) {
	table := tableOf(t, cluster())
	gone := cluster()
	for s := range cluster().Services() {
		gone = without(gone, s.Name.String())
	}
	gone = gone.With(func(e *model.Edit) {
		for n := range cluster().Namespaces() {
			e.SetNamespace(n, false)
		}
	})
	must(t, table.Withdraw(t.Context(), gone))
	must(t, table.Publish(t.Context(), gone, nil))
	if d := cmp.Diff(dump(newTable(t).View()), dump(table.View())); d != "" {
		t.Errorf("an empty table (-) differs from the emptied one (+):\n%s", d)
	}
}

// phases asks for one name after each phase on the way from one Service to another.
func phases(t *testing.T, name string, qtype uint16, from, to *model.Service, held bool) (before, withdrawn, published string) {
	t.Helper()
	s := with(model.Empty(), service("default/other", "10.96.9.9", []string{"/tcp/1"}))
	if from != nil {
		s = with(s, from)
	}
	table := tableOf(t, s)
	now := func() string {
		m, a := ask(t, table.View(), name, qtype, 4096, 0)
		return strings.ReplaceAll(strings.ReplaceAll(brief(m, a), ".default.svc.cluster.local.", ""), " 5 A ", " ")
	}
	before = now()
	next := without(s, "default/web")
	if to != nil {
		next = with(s, to)
	}
	must(t, table.Withdraw(t.Context(), next))
	withdrawn = now()
	must(t, table.Publish(t.Context(), next, func(n model.ServiceName) bool { return held && n.Name == "web" }))
	return before, withdrawn, now()
}

func TestPhases(t *testing.T) {
	ip := func(a string) *model.Service { return service("default/web", a, []string{"http/tcp/80"}) }
	pods := func(addrs ...string) *model.Service {
		s := service("default/web", "None", nil)
		for _, a := range addrs {
			s.Slices[0].Backends = append(s.Slices[0].Backends, ready("10.244.0."+a, ""))
		}
		return s
	}
	for _, c := range []struct {
		name     string
		from, to *model.Service
		held     bool
		want     string // before | withdrawn | published
	}{
		{"a new Service is named when it is programmed", nil, ip("10.96.0.1"), false, "NXDOMAIN | NXDOMAIN | web 10.96.0.1"},
		{"a new Service that failed is not named", nil, ip("10.96.0.1"), true, "NXDOMAIN | NXDOMAIN | NXDOMAIN"},
		{"what goes is withdrawn at once", ip("10.96.0.1"), nil, false, "web 10.96.0.1 | NXDOMAIN | NXDOMAIN"},
		{"a changed address is replaced in one step", ip("10.96.0.1"), ip("10.96.0.2"), false, "web 10.96.0.1 | web 10.96.0.1 | web 10.96.0.2"},
		{"a changed address that failed stays as it was", ip("10.96.0.1"), ip("10.96.0.2"), true, "web 10.96.0.1 | web 10.96.0.1 | web 10.96.0.1"},
		{"a set first shrinks, then grows", pods("1", "2"), pods("2", "3"), false,
			"web 10.244.0.1 web 10.244.0.2 | web 10.244.0.2 | web 10.244.0.2 web 10.244.0.3"},
		{"a held set has shrunk and does not grow", pods("1", "2"), pods("2", "3"), true,
			"web 10.244.0.1 web 10.244.0.2 | web 10.244.0.2 | web 10.244.0.2"},
		{"the last endpoint goes at once", pods("1"), pods(), false, "web 10.244.0.1 | NXDOMAIN | NXDOMAIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, w, p := phases(t, "web.default.svc.cluster.local.", mdns.TypeA, c.from, c.to, c.held)
			got := strings.ReplaceAll(strings.ReplaceAll(b+" | "+w+" | "+p, "\n", " "), "NXDOMAIN of cluster.local.", "NXDOMAIN")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAHeldServiceIsTakenUpWhenItIsNoLongerHeld(t *testing.T) {
	s := with(model.Empty(), service("default/web", "10.96.0.1", []string{"/tcp/80"}))
	table := newTable(t)
	must(t, table.Publish(t.Context(), s, func(model.ServiceName) bool { return true }))
	if got := table.View().Resolve("web.default.svc.cluster.local").Addrs; got != nil {
		t.Fatalf("held, and yet %v", got)
	}
	must(t, table.Publish(t.Context(), s, nil)) // the same snapshot: only the programming was tried again
	if got := table.View().Resolve("web.default.svc.cluster.local").Addrs; !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.96.0.1")}) {
		t.Errorf("no longer held: %v", got)
	}
}

func TestNothingIsWithdrawnForAnIncompleteSnapshot(t *testing.T) {
	table := tableOf(t, cluster())
	before := dump(table.View())
	must(t, table.Withdraw(t.Context(), model.Empty()))
	if d := cmp.Diff(before, dump(table.View())); d != "" {
		t.Error(d)
	}
}

func TestPhasesEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	table := newTable(t)
	for _, err := range []error{table.Withdraw(ctx, cluster()), table.Publish(ctx, cluster(), nil)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if ok, reason := table.Ready(); ok || reason == "" {
		t.Errorf("ready %t, %q", ok, reason)
	}
}

// Every view is of one snapshot: two names that change together never differ within it.
func TestAViewIsNeverAMixOfTwoSnapshots(t *testing.T) {
	world := func(i int) *model.Snapshot {
		a := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		return with(model.Empty(), service("default/a", a, []string{"/tcp/80"}), service("other/b", a, []string{"/tcp/80"}), many(20+i%3))
	}
	table := tableOf(t, world(0))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for turn := uint32(0); !stop.Load(); turn++ {
				v := table.View()
				a, b := v.Resolve("a.default.svc.cluster.local").Addrs, v.Resolve("b.other.svc.cluster.local").Addrs
				if len(a) != 1 || !slices.Equal(a, b) {
					t.Errorf("one view has %v and %v", a, b)
					return
				}
				m, _ := ask(t, v, "many.default.svc.cluster.local.", mdns.TypeA, 65535, turn)
				if n := len(m.Answer); n < 20 || n > 22 {
					t.Errorf("%d addresses, want 20 to 22", n)
				}
			}
		})
	}
	for i := range 300 {
		must(t, table.Publish(t.Context(), world(i), nil))
	}
	stop.Store(true)
	wg.Wait()
}

func TestAZoneMustBeADomainName(t *testing.T) {
	for _, d := range []string{"", ".", "a..b", strings.Repeat("x", 64)} {
		if _, err := NewTable(Zone{Domain: d}); err == nil {
			t.Errorf("%q was taken", d)
		}
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	must(t, tableOf(t, with(model.Empty(),
		service("kube-system/kube-dns", "10.96.0.10", []string{"dns/udp/53", "dns-tcp/tcp/53"}),
		service("default/db", "None", []string{"sql/tcp/3306"}, called("db-0", ready("10.244.1.7", "sql/tcp/3306"))),
		external("default/out", "www.example.com"),
	)).WriteText(&b))
	golden(t, "testdata/cluster.txt", b.String())
}
