//go:build linux

package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

func TestEachConnectionIsCountedOnceWhateverItsClass(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name  string
		edit  func(*model.Service)
		scope model.Scope
		want  kernel.Connections // of three packets
	}{
		{"random", func(*model.Service) {}, model.Inside, kernel.Connections{Forwarded: 3}},
		{"affinity", func(s *model.Service) { s.SessionAffinity = time.Hour }, model.Inside, kernel.Connections{Forwarded: 3}},
		{"client in range", func(s *model.Service) { s.SourceRanges = ranges }, model.Inside, kernel.Connections{Forwarded: 3}},
		{"client in range, affinity", func(s *model.Service) { s.SourceRanges, s.SessionAffinity = ranges, time.Hour }, model.Inside, kernel.Connections{Forwarded: 3}},
		{"client not in range", func(s *model.Service) { s.SourceRanges = ranges }, model.Outside, kernel.Connections{Dropped: 3}},
		{"no endpoint", func(s *model.Service) { s.Slices = nil }, model.Inside, kernel.Connections{Refused: 3}},
		{"none on the node", func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }, model.Outside, kernel.Connections{Dropped: 3}},
	} {
		for _, addr := range []string{"172.30.0.200", "fd00:30::200"} {
			t.Run(c.name+" "+addr, func(t *testing.T) {
				at := netip.MustParseAddr(addr)
				endpoint := map[bool]string{false: "10.244.2.2", true: "fd00:244:2::2"}[at.Is6()]
				s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: "web"}, Proxied: true, Frontends: []model.Frontend{
					{Addr: netip.AddrPortFrom(at, 80), Protocol: model.TCP, Kind: model.LoadBalancer, PortName: "http"}}}
				s.Slices = web("web", 1, endpoint).Slices
				c.edit(s)
				k := nfnltest.New()
				a := open(t, k)
				apply(t, a, snapshot(s))
				to := nftables.Key{Scope: c.scope, Addr: at, Protocol: model.TCP, Port: 80}
				for range 3 {
					k.Run(nfnl.FamilyOf(to.Addr), kernel.DefaultTable, "prerouting", nfnltest.Packet{Src: client(to),
						Dst: netip.AddrPortFrom(at, 80), Protocol: uint8(model.TCP), Learn: true})
				}
				var got kernel.Connections
				var endpoints uint64
				pools, err := a.Connections(s.Name)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range pools {
					got = kernel.Connections{Forwarded: got.Forwarded + p.Forwarded, Refused: got.Refused + p.Refused, Dropped: got.Dropped + p.Dropped}
					for _, e := range p.Endpoints {
						endpoints += e.Forwarded
					}
				}
				if got != c.want || endpoints != c.want.Forwarded {
					t.Errorf("got %+v, its endpoints %d, want %+v", got, endpoints, c.want)
				}
			})
		}
	}
}

// Memory and time of many counters would be felt: each endpoint is counted only up to a number of them.
func TestEndpointsBeyondALimitAreNotCounted(t *testing.T) {
	const limit, each = 1 << 14, 1 << 10
	var all []*model.Service
	for i := range limit/each + 1 {
		var endpoints []string
		for n := range each {
			endpoints = append(endpoints, fmt.Sprintf("10.%d.%d.%d", 128+i, n>>8, n&255))
		}
		all = append(all, web(fmt.Sprint("s", i), 10+i, endpoints...))
	}
	a := open(t, nfnltest.New())
	apply(t, a, snapshot(all...))
	counted, not := 0, 0
	for _, s := range all {
		pools, err := a.Connections(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pools {
			for _, e := range p.Endpoints {
				if e.Counted {
					counted++
				} else {
					not++
				}
			}
		}
	}
	if counted != limit || not != each {
		t.Errorf("%d endpoints are counted and %d are not, want %d and %d", counted, not, limit, each)
	}
}
