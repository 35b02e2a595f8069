//go:build linux

package kernel_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

// flows is a conntrack in memory that counts how often it is listed.
type flows struct {
	mu    sync.Mutex
	flows []nfnl.Flow
	lists int
	fails bool
}

func (f *flows) Flows(family nfnl.Family, protocol uint8, yield func(nfnl.Flow)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	for _, x := range f.flows {
		if x.Family == family && x.Protocol == protocol {
			yield(x)
		}
	}
	if f.fails {
		return errors.New("injected fault")
	}
	return nil
}

func (f *flows) DeleteFlow(x nfnl.Flow) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.flows {
		if f.flows[i] == x {
			f.flows = append(f.flows[:i:i], f.flows[i+1:]...)
			return nil
		}
	}
	panic("there is no such flow")
}

// of makes all ports of a Service those of another protocol.
func of(p model.Protocol, s *model.Service) *model.Service {
	for i := range s.Frontends {
		s.Frontends[i].Protocol = p
	}
	for _, sl := range s.Slices {
		for i := range sl.Backends {
			sl.Backends[i].Protocol = p
		}
	}
	return s
}

// terminating makes all endpoints of a Service such that are about to go, and serve still.
func terminating(s *model.Service) *model.Service {
	for _, sl := range s.Slices {
		for i := range sl.Backends {
			sl.Backends[i].Ready, sl.Backends[i].Terminating = false, true
		}
	}
	return s
}

// TestWhatADeadNodeDidNotAnswerIsForgotten has an endpoint of TCP go that was not about to.
func TestWhatADeadNodeDidNotAnswerIsForgotten(t *testing.T) {
	flow := func(port uint16, to, state string) nfnl.Flow {
		return nfnl.Flow{Family: nfnl.IPv4, Protocol: uint8(model.TCP), Src: netip.AddrPortFrom(netip.MustParseAddr("10.244.1.9"), port),
			Dst: netip.MustParseAddrPort("10.96.0.1:80"), ReplySrc: netip.MustParseAddrPort(to + ":8080"), State: state}
	}
	open, waits := flow(1, "10.244.2.3", "established"), flow(2, "10.244.2.3", nfnl.SYNSent)
	others, elsewhere := flow(3, "10.244.1.4", nfnl.SYNSent), flow(4, "10.244.2.3", nfnl.SYNSent)
	elsewhere.Dst = netip.MustParseAddrPort("10.96.0.2:80")
	ct := &flows{flows: []nfnl.Flow{open, waits, others, elsewhere}}
	both := snapshot(web("a", 1, "10.244.2.3", "10.244.1.4"))
	one := edited(both, web("a", 1, "10.244.1.4")).On(theNode)
	synctest.Test(t, func(t *testing.T) {
		a := start(t, ct)
		apply(t, a, both)
		apply(t, a, one)
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []nfnl.Flow{open, others, elsewhere}; !slices.Equal(ct.flows, want) || ct.lists != 1 {
			t.Errorf("after a second, left are %v, want %v; listed %d times", ct.flows, want, ct.lists)
		}
	})
}

// TestFlowsToAnEndpointThatIsBackStay has an endpoint go and come within the time in which changes are gathered.
func TestFlowsToAnEndpointThatIsBackStay(t *testing.T) {
	waits := nfnl.Flow{Family: nfnl.IPv4, Protocol: uint8(model.TCP), Src: netip.MustParseAddrPort("10.244.1.9:1"),
		Dst: netip.MustParseAddrPort("10.96.0.1:80"), ReplySrc: netip.MustParseAddrPort("10.244.2.3:8080"), State: nfnl.SYNSent}
	ct := &flows{flows: []nfnl.Flow{waits}}
	both := snapshot(web("a", 1, "10.244.2.3", "10.244.1.4"))
	one := edited(both, web("a", 1, "10.244.1.4")).On(theNode)
	again := edited(one, web("a", 1, "10.244.2.3", "10.244.1.4")).On(theNode)
	synctest.Test(t, func(t *testing.T) {
		a := start(t, ct)
		apply(t, a, both)
		apply(t, a, one)
		apply(t, a, again)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(ct.flows) != 1 {
			t.Error("the flow is gone")
		}
		apply(t, a, one)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(ct.flows) != 0 {
			t.Error("the flow stays though its endpoint is gone for good")
		}
	})
}

// TestFlowsOfTCPAreListedOnceASecondAtMost has endpoints go all the time, as a rollout does.
func TestFlowsOfTCPAreListedOnceASecondAtMost(t *testing.T) {
	ct := &flows{}
	both := snapshot(web("a", 1, "10.244.2.3", "10.244.1.4"))
	one := edited(both, web("a", 1, "10.244.1.4")).On(theNode)
	synctest.Test(t, func(t *testing.T) {
		a := start(t, ct)
		for range 500 { // 10 s
			apply(t, a, both)
			apply(t, a, one)
			time.Sleep(20 * time.Millisecond)
		}
		synctest.Wait()
		if ct.lists < 9 || ct.lists > 11 {
			t.Errorf("listed %d times in 10 s", ct.lists)
		}
	})
}

// start opens an Applier that runs until the test ends.
func start(t *testing.T, ct *flows) *kernel.Applier {
	a, err := kernel.Open(kernel.Config{Kernel: nfnltest.New(), Conntrack: ct})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestFlowsAreListedOnceForEachBatchInWhichAnEndpointWent(t *testing.T) {
	ct := &flows{flows: []nfnl.Flow{{Family: nfnl.IPv4, Protocol: uint8(model.UDP), Src: netip.MustParseAddrPort("10.244.1.9:4711"),
		Dst: netip.MustParseAddrPort("10.96.0.1:80"), ReplySrc: netip.MustParseAddrPort("10.244.1.3:8080")}}}
	a, err := kernel.Open(kernel.Config{Kernel: nfnltest.New(), Conntrack: ct})
	if err != nil {
		t.Fatal(err)
	}
	const udp, tcp, sctp = model.UDP, model.TCP, model.SCTP
	snap := snapshot()
	for _, c := range []struct {
		name     string
		services []*model.Service
		lists    int
		flows    int
		fails    bool
	}{
		{"at a start", []*model.Service{of(udp, web("a", 1, "10.244.1.3")), of(udp, web("b", 2, "10.244.1.2"))}, 1, 1, false},
		{"nothing changes", nil, 0, 1, false},
		{"endpoints come", []*model.Service{of(udp, web("a", 1, "10.244.1.3", "10.244.1.4"))}, 0, 1, false},
		{"a Service of TCP comes", []*model.Service{of(tcp, web("c", 3, "10.244.1.3"))}, 0, 1, false},
		{"its endpoint ends", []*model.Service{terminating(web("c", 3, "10.244.1.3"))}, 0, 1, false},
		{"and goes", []*model.Service{of(tcp, web("c", 3))}, 0, 1, false},
		{"another comes", []*model.Service{of(tcp, web("c", 3, "10.244.1.4"))}, 0, 1, false},
		{"and goes without having ended", []*model.Service{of(tcp, web("c", 3))}, 0, 1, false}, // later, by Run
		{"endpoints of two Services go, but listing fails", []*model.Service{of(udp, web("a", 1, "10.244.1.4")), of(udp, web("b", 2))}, 1, 0, true},
		{"the same again", nil, 1, 0, false},
		{"SCTP", []*model.Service{of(sctp, web("d", 4, "10.244.1.3"))}, 1, 0, false}, // its frontends are new
	} {
		before := ct.lists
		ct.fails = c.fails
		snap = edited(snap, c.services...).On(theNode)
		apply(t, a, snap)
		if got := ct.lists - before; got != c.lists || len(ct.flows) != c.flows {
			t.Errorf("%s: listed %d times, %d flows are left; want %d and %d", c.name, got, len(ct.flows), c.lists, c.flows)
		}
	}
}
