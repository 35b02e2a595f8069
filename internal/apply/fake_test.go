package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"minato/internal/model"
)

var errInjected = errors.New("injected fault")

// fault is asked before every step of a fake, with a word for it, and may make it fail.
type fault func(step string) bool

func never(string) bool { return false }

type addrs = map[netip.Addr]bool

// universe is what the fakes act on: which addresses work, and which ones names resolve to. Every change of it is
// checked for the promise of the package.
type universe struct {
	broken     func(format string, v ...any)
	programmed map[model.ServiceName]addrs
	named      map[model.ServiceName]addrs
}

func newUniverse(broken func(format string, v ...any)) *universe {
	return &universe{broken: broken, programmed: map[model.ServiceName]addrs{}, named: map[model.ServiceName]addrs{}}
}

func (u *universe) check(step string) {
	works := addrs{}
	for _, a := range u.programmed {
		maps.Copy(works, a)
	}
	for n, a := range u.named {
		for addr := range a {
			if !works[addr] {
				u.broken("after %s, %s resolves to %s, which is not programmed", step, n, addr)
			}
		}
	}
}

// wanted is the addresses of a Service in a snapshot.
func wanted(s *model.Snapshot, n model.ServiceName) addrs {
	out := addrs{}
	if svc := s.Service(n); svc != nil {
		for _, f := range svc.Frontends {
			out[f.Addr.Addr()] = true
		}
	}
	return out
}

// fakeProgrammer programs a universe. It panics when the order of the phases is broken.
type fakeProgrammer struct {
	*universe
	fails  fault
	next   *model.Snapshot // of the last Program that did not fail as a whole
	failed map[model.ServiceName]error

	mu       sync.Mutex // guards what tests read while a Loop runs
	attempts []uint64
	observed int
	differs  int           // how many of the next observations find a difference
	stuck    chan struct{} // if set, Observe waits for it to be closed
}

// seen is the revisions of all attempts so far, and the number of observations.
func (p *fakeProgrammer) seen() (attempts []uint64, observed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts), p.observed
}

func (p *fakeProgrammer) Name() string { return "dataplane" }

func (p *fakeProgrammer) Observe(context.Context) (differs bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stuck != nil {
		<-p.stuck
	}
	p.observed++
	p.differs--
	return p.differs >= 0, nil
}

func (p *fakeProgrammer) Program(_ context.Context, next *model.Snapshot) (map[model.ServiceName]error, error) {
	if !next.Complete || next.Node == nil {
		panic("Program of an incomplete snapshot")
	}
	p.next = nil
	p.mu.Lock()
	p.attempts = append(p.attempts, next.Revision)
	p.mu.Unlock()
	failed := map[model.ServiceName]error{}
	for svc := range next.Services() {
		if p.fails("program all") {
			return nil, errInjected
		}
		if p.fails("program " + svc.Name.Name) {
			failed[svc.Name] = errInjected
			continue
		}
		works := p.programmed[svc.Name]
		if works == nil {
			works = addrs{}
			p.programmed[svc.Name] = works
		}
		maps.Copy(works, wanted(next, svc.Name))
		p.check("program")
	}
	p.next, p.failed = next, failed
	return failed, nil
}

func (p *fakeProgrammer) Reap(_ context.Context, next *model.Snapshot) error {
	if p.next != next {
		panic("Reap without Program of the same snapshot")
	}
	for n, works := range p.programmed {
		if p.fails("reap") {
			return errInjected
		}
		if p.failed[n] != nil {
			continue
		}
		want := wanted(next, n)
		maps.DeleteFunc(works, func(a netip.Addr, _ bool) bool { return !want[a] })
		p.check("reap")
	}
	return nil
}

// fakePublisher names the addresses of a universe.
type fakePublisher struct {
	*universe
	fails fault
	phase string
}

func (p *fakePublisher) Name() string { return "dns" }

func (p *fakePublisher) Withdraw(_ context.Context, next *model.Snapshot) error {
	p.phase = "withdrawn"
	for n, named := range p.named {
		if p.fails("withdraw") {
			return errInjected
		}
		want := wanted(next, n)
		stays := maps.Clone(named)
		maps.DeleteFunc(stays, func(a netip.Addr, _ bool) bool { return !want[a] })
		if len(stays) > 0 || len(want) == 0 {
			p.named[n] = stays
		}
	}
	p.check("withdraw")
	return nil
}

func (p *fakePublisher) Publish(_ context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	if p.phase != "withdrawn" {
		panic("Publish without Withdraw")
	}
	p.phase = "published"
	for svc := range next.Services() {
		if p.fails("publish") {
			return errInjected
		}
		if !held(svc.Name) {
			p.named[svc.Name] = wanted(next, svc.Name)
			p.check("publish")
		}
	}
	return nil
}

// fakeSource is a Source whose snapshots the test sets.
type fakeSource struct {
	mu      sync.Mutex
	current *model.Snapshot
	changed chan struct{}
}

func newFakeSource() *fakeSource {
	return &fakeSource{current: model.Empty(), changed: make(chan struct{}, 1)}
}

func (s *fakeSource) Current() *model.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *fakeSource) Subscribe() (<-chan struct{}, func()) { return s.changed, func() {} }

func (s *fakeSource) update(edit func(*model.Edit)) {
	s.mu.Lock()
	s.current = s.current.With(edit)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func svcName(name string) model.ServiceName {
	return model.ServiceName{Namespace: "default", Name: name}
}

// svc is a proxied Service with frontends at addresses, by their last bytes.
func svc(name string, addresses ...int) *model.Service {
	s := &model.Service{Name: svcName(name), Proxied: true}
	for _, a := range addresses {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(a)}), 80)
		s.Frontends = append(s.Frontends, model.Frontend{Addr: addr, Protocol: model.TCP})
	}
	return s
}

func describe(m map[model.ServiceName]addrs) string {
	var lines []string
	for n, a := range m {
		for addr := range a {
			lines = append(lines, n.Name+"="+addr.String())
		}
	}
	slices.Sort(lines)
	return fmt.Sprint(lines)
}
