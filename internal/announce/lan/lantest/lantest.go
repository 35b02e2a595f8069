// Package lantest has a small world of load balancer addresses for tests of wires.
//
// It speaks no protocol and makes no network.
package lantest

import (
	"log/slog"
	"net/netip"
	"testing"

	"minato/internal/announce/lan"
	"minato/internal/model"
)

// World is a snapshot with one node, node1, whose Services of these names have addresses from vip on.
func World(vip netip.Addr, names ...string) *model.Snapshot {
	last := vip
	for range names {
		last = last.Next()
	}
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetNode(&model.Node{Name: "node1", Ready: true, Addrs: []netip.Addr{
			netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11"),
		}})
		e.SetLoadBalancing(&model.LoadBalancing{Pools: []model.Pool{{
			Name: "default", Ranges: []model.AddrRange{{First: vip, Last: last}},
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
	endpoint, ipv6 := netip.MustParseAddrPort("10.244.1.1:80"), a.Is6()
	if ipv6 {
		endpoint = netip.MustParseAddrPort("[fd00::1]:80")
	}
	return &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Type: model.TypeLoadBalancer, LoadBalancerAddrs: []netip.Addr{a},
		Frontends: []model.Frontend{{Addr: netip.AddrPortFrom(a, 80), Protocol: model.TCP, Kind: model.LoadBalancer}},
		Slices: []*model.BackendSlice{{IPv6: ipv6, Backends: []model.Backend{{
			Addr: endpoint, Protocol: model.TCP, Ready: true, Serving: true,
		}}}},
	}
}

// Nobody is held.
func Nobody(model.ServiceName) bool { return false }

// Apply takes a Speaker to a snapshot, as apply.Loop does.
func Apply(t *testing.T, s *lan.Speaker, next *model.Snapshot, held func(model.ServiceName) bool) {
	t.Helper()
	if err := s.Withdraw(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), next, held); err != nil {
		t.Fatal(err)
	}
}

// Log writes to the log of a test.
func Log(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
