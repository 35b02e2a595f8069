package model

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// AnnounceProtocol is how the addresses of a pool become known around the cluster.
type AnnounceProtocol uint8

// The protocols of MetalLB's configuration.
const (
	Layer2 AnnounceProtocol = iota // one node answers ARP or NDP for an address
	BGP                            // every node tells its routers
)

func (p AnnounceProtocol) String() string {
	if p == BGP {
		return "bgp"
	}
	return "layer2"
}

// AddrRange is the addresses from First to Last, both included and of one family.
type AddrRange struct{ First, Last netip.Addr }

// Contains reports whether a is in the range.
func (r AddrRange) Contains(a netip.Addr) bool {
	return a.Is6() == r.First.Is6() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Overlaps reports whether the ranges have an address in common.
func (r AddrRange) Overlaps(o AddrRange) bool { return r.Contains(o.First) || o.Contains(r.First) }

func (r AddrRange) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Pool is addresses from which Services of TypeLoadBalancer get theirs.
type Pool struct {
	Name          string
	Protocol      AnnounceProtocol
	Ranges        []AddrRange // as configured, without overlap with each other or with those of another pool
	AutoAssign    bool        // also for Services that do not ask for this pool or an address of it
	AvoidBuggyIPs bool        // leave out addresses that end in .0 and .255
}

// Contains reports whether the pool has the address.
func (p *Pool) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.Ranges, func(r AddrRange) bool { return r.Contains(a) })
}

// LoadBalancing is what decides which addresses load balancers have, apart from the Services. It is immutable once it
// is in a Snapshot.
type LoadBalancing struct {
	Pools  []Pool // in force, in the order of the configuration
	Origin string // where Pools come from, in words
	// Problem says why a newer configuration is not in force. Pools are then those of the last good one.
	Problem string
	Unused  []string // parts of the configuration that are understood and not served
	// Elsewhere names another load balancer that runs in the cluster and serves the same Services.
	Elsewhere string
	// Networks are those of the nodes' links, where it is known; Taken are addresses of other machines there.
	Networks []netip.Prefix
	Taken    []netip.Addr
}

// Pool finds the pool that has the address, nil when none does.
func (l *LoadBalancing) Pool(a netip.Addr) *Pool {
	return l.find(func(p *Pool) bool { return p.Contains(a) })
}

// PoolNamed finds a pool by name, nil when there is none.
func (l *LoadBalancing) PoolNamed(name string) *Pool {
	return l.find(func(p *Pool) bool { return p.Name == name })
}

func (l *LoadBalancing) find(is func(*Pool) bool) *Pool {
	if l == nil {
		return nil
	}
	for i := range l.Pools {
		if is(&l.Pools[i]) {
			return &l.Pools[i]
		}
	}
	return nil
}

// AddressRequest is what a Service of TypeLoadBalancer asks of whoever gives out addresses.
type AddressRequest struct {
	Class   string       // spec.loadBalancerClass
	Addrs   []netip.Addr // at most one of each family
	Pool    string       // of this pool only
	Sharing string       // Services with the same key may have the same address
	Problem string       // why the request cannot be read; nothing is given then
}

func (l *LoadBalancing) writeText(w io.Writer) {
	if len(l.Pools) == 0 && l.Problem == "" && l.Elsewhere == "" {
		return
	}
	fmt.Fprintf(w, "load balancing by %s\n", l.Origin)
	for i := range l.Pools {
		p := &l.Pools[i]
		var flags string
		if !p.AutoAssign {
			flags += " auto-assign=false"
		}
		if p.AvoidBuggyIPs {
			flags += " avoid-buggy-ips"
		}
		ranges := make([]string, len(p.Ranges))
		for i, r := range p.Ranges {
			ranges[i] = r.String()
		}
		fmt.Fprintf(w, "  pool %s %s %s%s\n", p.Name, p.Protocol, strings.Join(ranges, ","), flags)
	}
	if l.Elsewhere != "" {
		fmt.Fprintf(w, "  elsewhere %s\n", l.Elsewhere)
	}
	if l.Problem != "" {
		fmt.Fprintf(w, "  problem %s\n", l.Problem)
	}
	for _, u := range l.Unused {
		fmt.Fprintf(w, "  unused %s\n", u)
	}
}
