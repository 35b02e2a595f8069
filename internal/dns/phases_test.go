package dns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/apply"
	"minato/internal/dns"
	"minato/internal/model"
	"minato/internal/status"
)

// The names of a real table and a dataplane that is late, or cannot program one Service: no name may resolve to an
// address that is not programmed, and the other Services go on.

// slowDataplane programs ClusterIPs when it is let, but for the Services that it is told to fail.
type slowDataplane struct {
	let  chan struct{} // a value for each Program
	mu   sync.Mutex
	fail map[model.ServiceName]bool
	has  map[model.ServiceName][]netip.Addr
}

func (*slowDataplane) Name() string { return "dataplane" }

func (d *slowDataplane) Program(ctx context.Context, next *model.Snapshot) (map[model.ServiceName]error, error) {
	select {
	case <-d.let:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	failed := map[model.ServiceName]error{}
	for s := range next.Services() {
		if d.fail[s.Name] {
			failed[s.Name] = errors.New("no room")
			continue
		}
		d.has[s.Name] = append(slices.Clone(d.has[s.Name]), s.ClusterIPs...)
	}
	return failed, nil
}

// Reap deletes what next does not have, of Services that did not fail.
func (d *slowDataplane) Reap(_ context.Context, next *model.Snapshot) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.has {
		switch s := next.Service(name); {
		case s == nil:
			delete(d.has, name)
		case !d.fail[name]:
			d.has[name] = slices.Clone(s.ClusterIPs)
		}
	}
	return nil
}

// programmed needs d.mu.
func (d *slowDataplane) programmed(a netip.Addr) bool {
	for _, addrs := range d.has {
		if slices.Contains(addrs, a) {
			return true
		}
	}
	return false
}

func (d *slowDataplane) failing(n model.ServiceName, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[n] = yes
}

// world is a Source that the test changes.
type world struct {
	now     atomic.Pointer[model.Snapshot]
	changed chan struct{}
}

func (w *world) Current() *model.Snapshot             { return w.now.Load() }
func (w *world) Subscribe() (<-chan struct{}, func()) { return w.changed, func() {} }
func (w *world) become(edit func(*model.Edit)) {
	w.now.Store(w.now.Load().With(edit))
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func clusterIP(name, addr string) *model.Service {
	return &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, ClusterIPs: []netip.Addr{netip.MustParseAddr(addr)},
		Ports: []model.Port{{Protocol: model.TCP, Port: 80}}, Proxied: true,
	}
}

type phases struct {
	t         *testing.T
	world     world
	table     *dns.Table
	dataplane slowDataplane
}

func startPhases(t *testing.T) *phases {
	t.Helper()
	p := &phases{t: t, dataplane: slowDataplane{let: make(chan struct{}), fail: map[model.ServiceName]bool{}, has: map[model.ServiceName][]netip.Addr{}}}
	p.world.changed = make(chan struct{}, 1)
	p.world.now.Store(model.Empty())
	var err error
	if p.table, err = dns.NewTable(dns.Zone{Domain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	loop := apply.New(apply.Config{
		Source: &p.world, Node: model.Node{Name: "node1"}, Board: new(status.Board), Log: slog.New(slog.DiscardHandler),
		Programmers: []apply.Programmer{&p.dataplane}, Publishers: []apply.Publisher{p.table}, RetryMin: time.Millisecond, RetryMax: time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// resolve is what a client gets; whatever it is must be programmed.
func (p *phases) resolve(name string) string {
	p.t.Helper()
	p.dataplane.mu.Lock() // nothing is reaped between the look at the name and the one at the dataplane
	defer p.dataplane.mu.Unlock()
	addrs := p.table.View().Resolve(name + ".default.svc.cluster.local").Addrs
	for _, a := range addrs {
		if !p.dataplane.programmed(a) {
			p.t.Errorf("%s resolves to %s, which is not programmed", name, a)
		}
	}
	return fmt.Sprint(addrs)
}

// await lets the dataplane program until the name resolves as wanted, and looks at all names the whole time.
func (p *phases) await(name, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); p.resolve(name) != want; {
		select {
		case p.dataplane.let <- struct{}{}:
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s resolves to %s, want %s", name, p.resolve(name), want)
		}
	}
}

func TestANameIsThereWhenALateDataplaneHasItsAddress(t *testing.T) {
	p := startPhases(t)
	p.world.become(func(e *model.Edit) { e.SetService(clusterIP("web", "10.96.0.1")); e.SetComplete() })
	for range 20 { // nothing is let
		if got := p.resolve("web"); got != "[]" {
			t.Fatalf("resolves to %s before anything is programmed", got)
		}
		time.Sleep(time.Millisecond)
	}
	p.await("web", "[10.96.0.1]")
	p.world.become(func(e *model.Edit) { e.SetService(clusterIP("web", "10.96.0.2")) })
	p.await("web", "[10.96.0.2]")
	p.world.become(func(e *model.Edit) { e.DeleteService(model.ServiceName{Namespace: "default", Name: "web"}) })
	p.await("web", "[]")
}

func TestAServiceThatCannotBeProgrammedKeepsItsNameAndTheOthersGoOn(t *testing.T) {
	p := startPhases(t)
	web := model.ServiceName{Namespace: "default", Name: "web"}
	p.world.become(func(e *model.Edit) { e.SetService(clusterIP("web", "10.96.0.1")); e.SetComplete() })
	p.await("web", "[10.96.0.1]")
	p.dataplane.failing(web, true)
	p.world.become(func(e *model.Edit) {
		e.SetService(clusterIP("web", "10.96.0.9"))
		e.SetService(clusterIP("new", "10.96.0.3"))
	})
	p.await("new", "[10.96.0.3]")
	if got := p.resolve("web"); got != "[10.96.0.1]" {
		t.Errorf("the Service that failed resolves to %s, want what it had", got)
	}
	p.dataplane.failing(web, false)
	p.await("web", "[10.96.0.9]")
}
