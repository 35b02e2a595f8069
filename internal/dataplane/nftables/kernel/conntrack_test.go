//go:build linux

package kernel_test

import (
	"errors"
	"net/netip"
	"testing"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

// flows is a conntrack in memory that counts how often it is listed.
type flows struct {
	flows []nfnl.Flow
	lists int
	fails bool
}

func (f *flows) Flows(family nfnl.Family, protocol uint8, yield func(nfnl.Flow)) error {
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
		{"its endpoint goes", []*model.Service{of(tcp, web("c", 3))}, 0, 1, false},
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
