package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// ranges lists what can be asked for, of all pools or of the one that is named.
func (a *allocator) ranges(ipv6 bool, pool string) string {
	var all []string
	for _, p := range a.l.Pools {
		for _, r := range p.Ranges {
			if r.First.Is6() == ipv6 && (pool == "" || pool == p.Name) {
				all = append(all, r.String())
			}
		}
	}
	if len(all) == 0 {
		return "no pool"
	}
	return strings.Join(all, ", ")
}

func (a *allocator) poolNames() string {
	if len(a.l.Pools) == 0 {
		return a.noPools()
	}
	var names []string
	for _, p := range a.l.Pools {
		names = append(names, fmt.Sprintf("%q", p.Name))
	}
	return "there is " + strings.Join(names, ", ")
}

func (a *allocator) noPools() string {
	return "there are no pools, because of an error in " + strings.TrimSuffix(a.l.Origin, ", which was never good") + ": " + a.l.Problem
}

// exhausted says why no pool has an address for a Service.
func (a *allocator) exhausted(want model.AddressRequest, ipv6 bool) string {
	if len(a.l.Pools) == 0 {
		return a.noPools()
	}
	name := map[bool]string{false: "IPv4", true: "IPv6"}[ipv6]
	has := func(p model.Pool) bool {
		return slices.ContainsFunc(p.Ranges, func(r model.AddrRange) bool { return r.First.Is6() == ipv6 })
	}
	if want.Pool != "" {
		p := a.l.PoolNamed(want.Pool)
		switch {
		case p.Protocol != model.Layer2:
			return fmt.Sprintf("pool %q has protocol bgp, which is not served yet: ask for another pool", p.Name)
		case !has(*p):
			return fmt.Sprintf("pool %q has no %s addresses", p.Name, name)
		}
		return fmt.Sprintf("no available IPs in pool %q: add a range to it (it has %s), or delete a Service that has one", p.Name, a.ranges(ipv6, p.Name))
	}
	if !slices.ContainsFunc(a.l.Pools, has) {
		return "no pool has " + name + " addresses: add a range of them to one"
	}
	if !slices.ContainsFunc(a.l.Pools, func(p model.Pool) bool { return has(p) && p.AutoAssign && p.Protocol == model.Layer2 }) {
		return "no available IPs: every pool must be asked for by name (annotation metallb.universe.tf/address-pool), " + a.poolNames()
	}
	return "no available IPs: add a range to a pool (there is " + a.ranges(ipv6, "") + "), or delete a Service that has one"
}

// warnings are about ranges outside the nodes' networks.
func warnings(l *model.LoadBalancing) (all []string) {
	for _, p := range l.Pools {
		if p.Protocol != model.Layer2 {
			continue
		}
		for _, r := range p.Ranges {
			var known []string
			inside := false
			for _, n := range l.Networks {
				if n.Addr().Is6() == r.First.Is6() {
					known = append(known, n.Masked().String())
					inside = inside || n.Contains(r.First) && n.Contains(r.Last)
				}
			}
			if len(known) > 0 && !inside {
				all = append(all, fmt.Sprintf("pool %q: %s is not all inside the nodes' network %s: nobody on the LAN will ask for the addresses "+
					"outside; use others, or route them to a node", p.Name, r, strings.Join(known, ", ")))
			}
		}
	}
	return all
}

// addrStrings is for texts such as Assigned IP ["192.0.2.1"].
func addrStrings(addrs []netip.Addr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}
