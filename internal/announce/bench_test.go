package announce_test

import (
	"fmt"
	"testing"

	"minato/internal/announce"
	"minato/internal/model"
)

// BenchmarkOneEndpointOfManyServices is what a change of one Service costs among 5,000 that have an address each.
func BenchmarkOneEndpointOfManyServices(b *testing.B) {
	l := &model.LoadBalancing{Pools: []model.Pool{{Name: "all", Ranges: []model.AddrRange{{First: addr("10.0.0.0"), Last: addr("10.255.255.255")}}}}}
	var services []*model.Service
	a := addr("10.0.0.1")
	for i := range 5000 {
		services = append(services, balancer(fmt.Sprint("s", i), a, "a", "b", "c"))
		a = a.Next()
	}
	s := snapshot(l, nodes("a", "b", "c"), services...)
	p := announce.New(s)
	one, other := balancer("s2500", services[2500].LoadBalancerAddrs[0], "a"), services[2500]
	b.ReportAllocs()
	for b.Loop() {
		one, other = other, one
		s = s.With(func(e *model.Edit) { e.SetService(one) })
		p = p.Next(s)
	}
}
