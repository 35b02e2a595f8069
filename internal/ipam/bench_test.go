package ipam_test

import (
	"fmt"
	"testing"

	"minato/internal/ipam"
	"minato/internal/model"
)

// BenchmarkAllocate decides for 5,000 Services: those that have an address, and those that get one.
func BenchmarkAllocate(b *testing.B) {
	l := pools(pool("all", "10.0.0.0", "10.255.255.255"))
	var all []*model.Service
	for i := range 5000 {
		all = append(all, balancer(fmt.Sprintf("s%04d", i)))
	}
	fresh := snapshot(l, all...)
	settled := snapshot(l, written(ipam.Allocate(fresh, nil), all)...)
	for name, s := range map[string]*model.Snapshot{"new": fresh, "kept": settled} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ipam.Allocate(s, nil)
			}
		})
	}
}
