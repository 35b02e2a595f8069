// Package ipam decides which Service of type LoadBalancer has which address, out of the pools of a snapshot.
//
// Allocate is a pure function. It keeps what the status of a Service already has as long as that is still right, so
// the API is the only record of what was given, and unrelated changes move nothing. The annotations, and the words of
// most reasons, are those of MetalLB (its internal/allocator and controller/service.go), so that clusters can move.
//
// It writes nothing: package statuswriter does. It does not say who announces an address: package announce does.
package ipam

import (
	"cmp"
	"net/netip"
	"slices"

	"minato/internal/model"
)

// Class is the spec.loadBalancerClass of Services that want minato and nobody else. Those without a class are served
// too; those of any other class are left alone.
const Class = "minato.io/lb"

// Ours reports whether a Service gets its addresses here.
func Ours(s *model.Service) bool {
	return s != nil && s.Type == model.TypeLoadBalancer && (s.LoadBalancer.Class == "" || s.LoadBalancer.Class == Class)
}

// Decision is what one Service shall have.
type Decision struct {
	Service model.ServiceName
	Had     []netip.Addr // in its status
	Addrs   []netip.Addr // what its status shall have, at most one of each family
	Pool    string       // of the first of Addrs
	Dropped string       // why an address that it had is taken away
	Problem string       // why it has not got what it could have, and what to change
}

// Changed reports whether the status must be written.
func (d *Decision) Changed() bool { return !slices.Equal(d.Had, d.Addrs) }

// Plan is the decisions for one snapshot.
type Plan struct {
	Revision  uint64
	Decisions []Decision // one for each Service of ours, in the order of their names
	Warnings  []string   // about pools: sound, but not what one wants
}

// Given is what was given out and is perhaps not yet in the snapshot.
type Given map[model.ServiceName][]netip.Addr

// Allocate decides for every Service of ours in s. What given says of a Service counts as its status, because a
// snapshot may be older than what was last written. It returns nil while nothing is known of pools, and while another
// load balancer serves: then nobody may give or take addresses.
func Allocate(s *model.Snapshot, given Given) *Plan {
	l := s.LoadBalancing
	if l == nil || l.Elsewhere != "" {
		return nil
	}
	p := &Plan{Revision: s.Revision, Warnings: warnings(l)}
	if len(l.Pools) == 0 && l.Problem == "" {
		p.Decisions = takeBack(s, given)
		return p
	}
	a := newAllocator(s)
	var services []*request
	for svc := range s.Services() {
		if !Ours(svc) {
			a.reserveOther(svc)
			continue
		}
		services = append(services, newRequest(svc, given.status(svc)))
	}
	a.settle(services)
	for _, r := range services {
		p.Decisions = append(p.Decisions, r.decision())
	}
	return p
}

// status is what the Service has, as far as is known.
func (g Given) status(s *model.Service) []netip.Addr {
	if addrs, ok := g[s.Name]; ok {
		return addrs
	}
	return s.LoadBalancerAddrs
}

// takeBack is for a cluster that configures no pool, or no longer does. Whoever writes must leave alone what others
// have given; Services without an address are not ours to worry about.
func takeBack(s *model.Snapshot, given Given) (all []Decision) {
	for svc := range s.Services() {
		if had := given.status(svc); Ours(svc) && len(had) > 0 {
			all = append(all, Decision{Service: svc.Name, Had: had, Dropped: "there are no pools any more"})
		}
	}
	return all
}

// Same reports whether two versions of a Service are one for Allocate, so that nothing has to be decided anew.
func Same(a, b *model.Service) bool {
	if a == nil || b == nil {
		return irrelevant(a) && irrelevant(b)
	}
	return irrelevant(a) && irrelevant(b) || a.Type == b.Type && a.LoadBalancer.Class == b.LoadBalancer.Class &&
		slices.Equal(a.LoadBalancer.Addrs, b.LoadBalancer.Addrs) && a.LoadBalancer.Pool == b.LoadBalancer.Pool &&
		a.LoadBalancer.Sharing == b.LoadBalancer.Sharing && a.LoadBalancer.Problem == b.LoadBalancer.Problem &&
		slices.Equal(a.LoadBalancerAddrs, b.LoadBalancerAddrs) && slices.Equal(a.ClusterIPs, b.ClusterIPs) &&
		slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Frontends, b.Frontends) &&
		a.ExternalTrafficPolicy == b.ExternalTrafficPolicy && a.Selector == b.Selector && a.Created.Equal(b.Created)
}

// irrelevant: it wants no address, and uses none that a pool could have.
func irrelevant(s *model.Service) bool {
	return s == nil || !Ours(s) && len(s.LoadBalancerAddrs) == 0 &&
		!slices.ContainsFunc(s.Frontends, func(f model.Frontend) bool { return f.Kind == model.ExternalIP })
}

// older orders Services by who asked first.
func older(a, b *request) int {
	return cmp.Or(a.svc.Created.Compare(b.svc.Created), a.svc.Name.Compare(b.svc.Name))
}
