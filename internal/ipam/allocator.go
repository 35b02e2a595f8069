package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// allocator is what is known of addresses while one snapshot is decided. Addresses are only ever added to it.
type allocator struct {
	l     *model.LoadBalancing
	other map[netip.Addr]string     // used by something that is no Service of ours, in words
	pods  map[netip.Prefix]string   // ranges of pods that meet a pool, by node
	users map[netip.Addr][]*request // Services of ours that have it
	next  map[cursor]netip.Addr     // where a search goes on; addresses before are used or not to be given
}

// cursor is one range of one pool.
type cursor struct {
	pool  string
	index int
}

func newAllocator(s *model.Snapshot) *allocator {
	a := &allocator{l: s.LoadBalancing, other: map[netip.Addr]string{},
		pods: map[netip.Prefix]string{}, users: map[netip.Addr][]*request{}, next: map[cursor]netip.Addr{}}
	for n := range s.Nodes() {
		for _, addr := range n.Addrs {
			a.other[addr] = "node " + n.Name
		}
		for _, c := range n.PodCIDRs {
			if a.meetsPool(c) {
				a.pods[c] = n.Name
			}
		}
	}
	for _, addr := range a.l.Taken {
		a.other[addr] = "another machine of the network"
	}
	for _, p := range a.l.Networks {
		if p.Addr().Is4() && p.Bits() < 31 {
			a.other[p.Masked().Addr()] = "the network " + p.String() + " itself"
			a.other[broadcast(p)] = "broadcasts of the network " + p.String()
		}
	}
	return a
}

func (a *allocator) meetsPool(p netip.Prefix) bool {
	return slices.ContainsFunc(a.l.Pools, func(pool model.Pool) bool {
		return slices.ContainsFunc(pool.Ranges, func(r model.AddrRange) bool {
			return p.Contains(r.First) || r.Contains(p.Masked().Addr())
		})
	})
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// reserveOther keeps away from what a Service uses that is not ours.
func (a *allocator) reserveOther(s *model.Service) {
	for _, addr := range s.LoadBalancerAddrs {
		a.other[addr] = "Service " + s.Name.String()
	}
	a.reserveExternal(s)
}

func (a *allocator) reserveExternal(s *model.Service) {
	for _, f := range s.Frontends {
		if f.Kind == model.ExternalIP {
			a.other[f.Addr.Addr()] = "an externalIP of Service " + s.Name.String()
		}
	}
}

// settle decides for all: first who keeps what, then who gets the address that it asks for, then the rest. In each
// step the oldest Service comes first, so a newer one never takes anything from it.
func (a *allocator) settle(all []*request) {
	byAge := slices.Clone(all)
	slices.SortFunc(byAge, older)
	for _, r := range byAge {
		a.reserveExternal(r.svc)
	}
	for _, step := range []func(*request, *family){a.keep, a.giveAsked, a.giveAny} {
		for _, r := range byAge {
			for i := range r.families {
				if f := &r.families[i]; !f.got.IsValid() {
					step(r, f)
				}
			}
		}
		byAge = slices.DeleteFunc(byAge, func(r *request) bool { return r.svc.LoadBalancer.Problem != "" }) // keeps what it has
	}
}

// keep leaves a Service what its status has, if that is still right.
func (a *allocator) keep(r *request, f *family) {
	if !f.had.IsValid() {
		return
	}
	want := r.svc.LoadBalancer
	pool := a.l.Pool(f.had)
	switch {
	case a.l.Problem != "" && len(a.l.Pools) == 0:
		f.got = f.had // nobody knows which addresses are right
	case f.asked.IsValid() && f.asked != f.had:
		f.dropped = fmt.Sprintf("%s is asked for instead of %s", f.asked, f.had)
	case pool == nil:
		f.dropped = fmt.Sprintf("%s is in no pool any more", f.had)
	case want.Pool != "" && want.Pool != pool.Name:
		f.dropped = fmt.Sprintf("pool %q is asked for, and %s is in pool %q", want.Pool, f.had, pool.Name)
	default:
		if f.dropped = a.conflict(r, f.had, pool); f.dropped == "" {
			a.take(r, f, f.had, pool)
		}
	}
}

// giveAsked gives a Service the address that it asks for.
func (a *allocator) giveAsked(r *request, f *family) {
	if !f.asked.IsValid() {
		return
	}
	pool, want := a.l.Pool(f.asked), r.svc.LoadBalancer
	switch {
	case len(a.l.Pools) == 0:
		f.problem = a.noPools()
	case pool == nil:
		f.problem = fmt.Sprintf("%q is not allowed in config: ask for an address of %s, or add it to a pool", f.asked, a.ranges(f.ipv6, ""))
	case want.Pool != "" && want.Pool != pool.Name:
		f.problem = fmt.Sprintf("%q is in pool %q, and the Service asks for pool %q", f.asked, pool.Name, want.Pool)
	default:
		if f.problem = a.conflict(r, f.asked, pool); f.problem == "" {
			a.take(r, f, f.asked, pool)
		}
	}
}

// giveAny gives an address of the pool that is asked for, else of the first pool that has one. With a sharing key an
// address that already has it is taken first.
func (a *allocator) giveAny(r *request, f *family) {
	if f.asked.IsValid() {
		return
	}
	want := r.svc.LoadBalancer
	if want.Pool != "" && a.l.PoolNamed(want.Pool) == nil {
		f.problem = fmt.Sprintf("unknown pool %q: %s", want.Pool, a.poolNames())
		return
	}
	if want.Sharing != "" && a.giveShared(r, f) {
		return
	}
	for i := range a.l.Pools {
		pool := &a.l.Pools[i]
		if !eligible(pool, want) || pool.Protocol != model.Layer2 {
			continue
		}
		if addr, ok := a.free(pool, f.ipv6); ok {
			a.take(r, f, addr, pool)
			return
		}
	}
	f.problem = a.exhausted(want, f.ipv6)
}

func eligible(p *model.Pool, want model.AddressRequest) bool {
	return want.Pool == p.Name || want.Pool == "" && p.AutoAssign
}

// giveShared gives the lowest address that others with the same key have.
func (a *allocator) giveShared(r *request, f *family) bool {
	var best netip.Addr
	for addr, users := range a.users {
		pool := a.l.Pool(addr)
		if addr.Is6() == f.ipv6 && users[0].svc.LoadBalancer.Sharing == r.svc.LoadBalancer.Sharing &&
			eligible(pool, r.svc.LoadBalancer) && a.conflict(r, addr, pool) == "" && (!best.IsValid() || addr.Less(best)) {
			best = addr
		}
	}
	if best.IsValid() {
		a.take(r, f, best, a.l.Pool(best))
	}
	return best.IsValid()
}

func (a *allocator) take(r *request, f *family, addr netip.Addr, p *model.Pool) {
	f.got, f.pool, f.problem = addr, p.Name, ""
	a.users[addr] = append(a.users[addr], r)
}

// free finds the first address of a pool that nobody has. What it passes over stays used while this snapshot is
// decided, so the next search goes on from there.
func (a *allocator) free(p *model.Pool, ipv6 bool) (netip.Addr, bool) {
	for i, r := range p.Ranges {
		if r.First.Is6() != ipv6 {
			continue
		}
		c := cursor{p.Name, i}
		addr, ok := a.next[c]
		if !ok {
			addr = r.First
		}
		for ; addr.IsValid() && r.Contains(addr); addr = addr.Next() {
			if len(a.users[addr]) == 0 && a.unfit(addr, p) == "" {
				a.next[c] = addr
				return addr, true
			}
		}
		a.next[c] = addr
	}
	return netip.Addr{}, false
}

// unfit says why nobody may have an address.
func (a *allocator) unfit(addr netip.Addr, p *model.Pool) string {
	if user := a.other[addr]; user != "" {
		return fmt.Sprintf("%q is used by %s: choose another address", addr, user)
	}
	if b := addr.AsSlice(); p.AvoidBuggyIPs && addr.Is4() && (b[3] == 0 || b[3] == 255) {
		return fmt.Sprintf("%q is one that pool %q leaves out (avoid-buggy-ips)", addr, p.Name)
	}
	for c, node := range a.pods {
		if c.Contains(addr) {
			return fmt.Sprintf("%q is in the range of pods of node %s: take that range out of pool %q", addr, node, p.Name)
		}
	}
	return ""
}

// conflict says why a Service cannot have an address.
func (a *allocator) conflict(r *request, addr netip.Addr, p *model.Pool) string {
	if why := a.unfit(addr, p); why != "" {
		return why
	}
	for _, o := range a.users[addr] {
		if why := sharing(r.svc, o.svc, addr); why != "" {
			return why
		}
	}
	return ""
}

// sharing says why two Services cannot have one address: they must have the same key and no port in common, and with
// policy Local the same pods, because all traffic of an address goes to one node (MetalLB's rule).
func sharing(s, o *model.Service, addr netip.Addr) string {
	key, theirs := s.LoadBalancer.Sharing, o.LoadBalancer.Sharing
	if key == "" || key != theirs {
		return fmt.Sprintf("can't change sharing key for %q, address also in use by %s: choose another address, or give both Services "+
			"the same annotation metallb.universe.tf/allow-shared-ip", addr, o.Name)
	}
	for _, p := range s.Ports {
		if slices.ContainsFunc(o.Ports, func(q model.Port) bool { return p.Port == q.Port && p.Protocol == q.Protocol }) {
			return fmt.Sprintf("port %s/%d is already in use on %q by %s", strings.ToUpper(p.Protocol.String()), p.Port, addr, o.Name)
		}
	}
	if backends(s) != backends(o) {
		return fmt.Sprintf("can't share %q with %s: with externalTrafficPolicy Local both need it, and the same selector", addr, o.Name)
	}
	return ""
}

func backends(s *model.Service) string {
	if s.ExternalTrafficPolicy == model.Local {
		return "Local " + s.Selector
	}
	return ""
}
