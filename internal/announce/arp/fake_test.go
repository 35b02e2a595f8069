package arp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"minato/internal/model"
)

// fakeWire is a link in memory. It panics when it is used in a way that a real one would not survive.
type fakeWire struct {
	in chan packet

	mu     sync.Mutex
	closed bool
	sent   []sent
	fail   error // of the next send
}

type sent struct {
	at time.Time
	to mac
	p  packet
}

func newFakeWire() *fakeWire { return &fakeWire{in: make(chan packet)} }

func (f *fakeWire) mac() mac { return own }

func (f *fakeWire) receive() (packet, error) {
	p, ok := <-f.in
	if !ok {
		return packet{}, fmt.Errorf("receiving: %w", os.ErrClosed)
	}
	return p, nil
}

func (f *fakeWire) send(to mac, p packet) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !p.senderIP.Is4() || !p.targetIP.Is4() || p.sender != own {
		panic(fmt.Sprintf("sent %+v", p))
	}
	if f.closed {
		return os.ErrClosed
	}
	err := f.fail
	if f.fail = nil; err == nil {
		f.sent = append(f.sent, sent{time.Now(), to, p})
	}
	return err
}

func (f *fakeWire) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		panic("closed twice")
	}
	f.closed = true
	close(f.in)
	return nil
}

// take is what was sent since the last call.
func (f *fakeWire) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.sent
	f.sent = nil
	return out
}

func (f *fakeWire) failNext(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// world is a snapshot with one node, whose Services of these names have addresses from vip on.
func world(names ...string) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetNode(&model.Node{Name: "node1", Ready: true})
		e.SetLoadBalancing(&model.LoadBalancing{Pools: []model.Pool{{
			Name: "default", Ranges: []model.AddrRange{{First: vip, Last: netip.MustParseAddr("192.0.2.250")}},
		}}})
		a := vip
		for _, name := range names {
			e.SetService(balancer(name, a))
			a = a.Next()
		}
	})
}

// balancer is a Service with one address and one ready endpoint.
func balancer(name string, a netip.Addr) *model.Service {
	return &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Type: model.TypeLoadBalancer, LoadBalancerAddrs: []netip.Addr{a},
		Frontends: []model.Frontend{{Addr: netip.AddrPortFrom(a, 80), Protocol: model.TCP, Kind: model.LoadBalancer}},
		Slices: []*model.BackendSlice{{Backends: []model.Backend{{
			Addr: netip.MustParseAddrPort("10.244.1.1:80"), Protocol: model.TCP, Ready: true, Serving: true,
		}}}},
	}
}

func nobody(model.ServiceName) bool { return false }

// apply takes a Speaker to a snapshot, as apply.Loop does.
func apply(t *testing.T, s *Speaker, next *model.Snapshot, held func(model.ServiceName) bool) {
	t.Helper()
	if err := s.Withdraw(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), next, held); err != nil {
		t.Fatal(err)
	}
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
