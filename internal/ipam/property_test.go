package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"minato/internal/ipam"
	"minato/internal/model"
)

// anyPools draws a few small pools without overlap, so that addresses run out and meet nodes.
func anyPools(t *rapid.T) *model.LoadBalancing {
	l := &model.LoadBalancing{Origin: "a test"}
	next := netip.MustParseAddr("192.0.2.8")
	for i := range rapid.IntRange(1, 3).Draw(t, "pools") {
		p := model.Pool{Name: fmt.Sprint("pool", i), AutoAssign: rapid.Bool().Draw(t, "auto"), AvoidBuggyIPs: rapid.Bool().Draw(t, "avoid")}
		r := model.AddrRange{First: next, Last: next}
		for range rapid.IntRange(0, 5).Draw(t, "size") {
			r.Last = r.Last.Next()
		}
		next = r.Last.Next()
		p.Ranges = []model.AddrRange{r}
		l.Pools = append(l.Pools, p)
	}
	return l
}

// anyBalancer draws a Service that may ask for something, and may have something that it should not.
func anyBalancer(t *rapid.T, name string) *model.Service {
	s := balancer(name, created(rapid.IntRange(0, 3).Draw(t, "created")), port(uint16(rapid.IntRange(80, 82).Draw(t, "port"))))
	anAddr := func(what string) netip.Addr {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(6, 24).Draw(t, what))})
	}
	if rapid.IntRange(0, 3).Draw(t, "asks") == 0 {
		s.LoadBalancer.Addrs = []netip.Addr{anAddr("asked")}
	}
	if rapid.IntRange(0, 3).Draw(t, "asks a pool") == 0 {
		s.LoadBalancer.Pool = fmt.Sprint("pool", rapid.IntRange(0, 3).Draw(t, "pool"))
	}
	if rapid.Bool().Draw(t, "shares") {
		s.LoadBalancer.Sharing = rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "key")
	}
	if rapid.IntRange(0, 2).Draw(t, "has") == 0 {
		s.LoadBalancerAddrs = []netip.Addr{anAddr("had")}
	}
	if rapid.IntRange(0, 3).Draw(t, "local") == 0 {
		s.ExternalTrafficPolicy = model.Local
	}
	return s
}

func anyBalancers(t *rapid.T) (all []*model.Service) {
	for i := range rapid.IntRange(0, 12).Draw(t, "services") {
		all = append(all, anyBalancer(t, fmt.Sprint("s", i)))
	}
	return all
}

// written is the Services as they are once a plan has been written to the API.
func written(p *ipam.Plan, services []*model.Service) (out []*model.Service) {
	for _, s := range services {
		cp := *s
		for _, d := range p.Decisions {
			if d.Service == s.Name {
				cp.LoadBalancerAddrs = d.Addrs
			}
		}
		out = append(out, &cp)
	}
	return out
}

func TestNoAddressIsGivenTwiceUnlessItIsShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, services := anyPools(t), anyBalancers(t)
		s := snapshot(l, services...)
		users := map[netip.Addr][]*model.Service{}
		for _, d := range ipam.Allocate(s, nil).Decisions {
			svc := s.Service(d.Service)
			for _, a := range d.Addrs {
				if p := l.Pool(a); p == nil || svc.LoadBalancer.Pool != "" && p.Name != svc.LoadBalancer.Pool {
					t.Fatalf("%s has %s, which is in no pool that it may have", d.Service, a)
				}
				if s.LocalNode(a) != nil {
					t.Fatalf("%s has %s, which is a node's", d.Service, a)
				}
				for _, other := range users[a] {
					if svc.LoadBalancer.Sharing == "" || svc.LoadBalancer.Sharing != other.LoadBalancer.Sharing || svc.Ports[0] == other.Ports[0] {
						t.Fatalf("%s and %s both have %s", d.Service, other.Name, a)
					}
				}
				users[a] = append(users[a], svc)
			}
			if len(d.Addrs) == 0 && d.Problem == "" {
				t.Fatalf("%s has no address, and nothing says why", d.Service)
			}
			if asked := svc.LoadBalancer.Addrs; len(asked) > 0 && len(d.Addrs) > 0 && !slices.Equal(asked, d.Addrs) {
				t.Fatalf("%s asks for %s and has %s", d.Service, asked, d.Addrs)
			}
		}
	})
}

func TestWhatWasDecidedIsDecidedAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, services := anyPools(t), anyBalancers(t)
		first := ipam.Allocate(snapshot(l, services...), nil)
		second := ipam.Allocate(snapshot(l, written(first, services)...), nil)
		if d := cmp.Diff(given(first), given(second)); d != "" {
			t.Fatalf("-first +second:\n%s", d)
		}
		for _, d := range second.Decisions {
			if d.Changed() {
				t.Fatalf("%s would be written again", d.Service)
			}
		}
	})
}

func TestTheOrderInWhichServicesAreHeardOfIsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, services := anyPools(t), anyBalancers(t)
		want := ipam.Allocate(snapshot(l, services...), nil)
		shuffled := rapid.Permutation(services).Draw(t, "order")
		if d := cmp.Diff(given(want), given(ipam.Allocate(snapshot(l, shuffled...), nil))); d != "" {
			t.Fatalf("-want +got:\n%s", d)
		}
	})
}

// With whom a Service shares an address is another matter: it may be what no longer fits.
func TestAChangeOfOneServiceTakesNothingFromOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := anyPools(t)
		services := append(anyBalancers(t), anyBalancer(t, "changed"))
		first := ipam.Allocate(snapshot(l, services...), nil)
		now := written(first, services)
		last := len(now) - 1
		if rapid.Bool().Draw(t, "deleted") {
			now = now[:last]
		} else {
			now[last] = anyBalancer(t, "changed")
			now[last].LoadBalancerAddrs = first.Decisions[0].Addrs // "changed" is the first by name
		}
		second := map[model.ServiceName][]netip.Addr{}
		for _, d := range ipam.Allocate(snapshot(l, now...), nil).Decisions {
			second[d.Service] = d.Addrs
		}
		for _, d := range first.Decisions[1:] {
			shared := slices.Equal(d.Addrs, first.Decisions[0].Addrs)
			if len(d.Addrs) > 0 && !shared && !slices.Equal(second[d.Service], d.Addrs) {
				t.Fatalf("%s had %s and now has %s", d.Service, d.Addrs, second[d.Service])
			}
		}
	})
}
