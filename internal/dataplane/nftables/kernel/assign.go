//go:build linux

package kernel

import (
	"net/netip"
	"slices"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// The steps of a change. Each is a transaction of its own, because a look-up in a set reads the newest generation
// while the packet is underway: what a step refers to must be there since the step before.
const (
	prepare = iota // endpoints, slots and chains that are new; slots that go to other endpoints
	swap           // frontends: to other pools and classes, or away
	clean          // what nothing refers to any more
	nSteps
)

// operations are the element operations of one step.
type operations struct {
	del, add []Element // in this order: what replaces an element follows its deletion
}

func (o *operations) len() int { return len(o.del) + len(o.add) }

// change is what Assign adds up for a number of Services before it is committed.
type change struct {
	steps   [nSteps]operations
	classes map[class]bool // in use; those without a chain get one in the first step
	touched map[SetName]map[netip.Addr]bool
}

func newChange() *change {
	c := &change{classes: map[class]bool{}, touched: map[SetName]map[netip.Addr]bool{}}
	for _, set := range addrSets {
		c.touched[set] = map[netip.Addr]bool{}
	}
	return c
}

func (c *change) len() int {
	n := 0
	for i := range c.steps {
		n += c.steps[i].len()
	}
	return n
}

func (c *change) add(step int, e Element) { c.steps[step].add = append(c.steps[step].add, e) }
func (c *change) del(step int, e Element) { c.steps[step].del = append(c.steps[step].del, e) }

// replace deletes the element of e's key and adds e.
func (c *change) replace(step int, e Element) {
	c.del(step, e.key())
	c.add(step, e)
}

// assigner is Assign's view of one table.
type assigner struct {
	ipv6   bool
	state  *State
	ledger *ledger
	// stillWanted reports whether the plan of the Service has the frontend. It is asked only where two collide.
	stillWanted func(model.ServiceName, nftables.Key) bool
}

// assign adds to c what takes one Service from the state to its plan (nil: nothing is wanted any more). It depends
// on history by the state alone, changes no element itself and gives out new ids. Without reap, frontends which the
// plan no longer has stay with the endpoints that they have; assign then reports true.
//
// From any state, and after each step, every frontend of class n finds n slots, and every slot its endpoint.
func (a *assigner) assign(c *change, name model.ServiceName, p *nftables.ServicePlan, reap bool) (left bool, err error) {
	if p == nil {
		p = &nftables.ServicePlan{Name: name}
	}
	if a.ledger.services[name] == nil && a.empty(p) {
		return false, nil
	}
	h := a.ledger.open(name)
	defer a.ledger.close(h)
	w := wanted{assigner: a, change: c, h: h, plan: p, keys: map[nftables.Key]int{}, pools: map[uint32]int{}}
	if err := w.claim(); err != nil {
		return false, err
	}
	if reap {
		w.reap()
	}
	w.fillPools()
	left = w.point()
	w.cleanPools()
	w.holdAddrs(reap)
	return left, nil
}

func (a *assigner) empty(p *nftables.ServicePlan) bool {
	return !slices.ContainsFunc(p.Frontends, func(f nftables.Frontend) bool { return f.Addr.Is6() == a.ipv6 }) &&
		len(a.ours(p.Pass)) == 0
}

// ours are the addresses of the table's family.
func (a *assigner) ours(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, x := range addrs {
		if x.Is6() == a.ipv6 {
			out = append(out, x)
		}
	}
	return out
}

// wanted is the work on one Service.
type wanted struct {
	*assigner
	*change
	h     *holding
	plan  *nftables.ServicePlan
	keys  map[nftables.Key]int // to the index in plan.Frontends
	pools map[uint32]int       // id to the index in plan.Pools
}

// claim takes the plan's keys, and a pool for each of its pools: the one held, or the one to which a frontend that
// nobody holds points (after a restart), or a new one.
func (w *wanted) claim() error {
	var keys []nftables.Key
	for i, f := range w.plan.Frontends {
		if f.Addr.Is6() == w.ipv6 {
			w.keys[f.Key] = i
			keys = append(keys, f.Key)
		}
	}
	if err := w.ledger.claim(w.h, keys, w.stillWanted); err != nil {
		return err
	}
	for _, k := range keys {
		pk := w.plan.Pools[w.plan.Frontends[w.keys[k]].Pool].Key
		if _, ok := w.h.pools[pk]; ok {
			continue
		}
		if t, ok := w.state.svc[k]; ok && t.pool != 0 && w.ledger.pools[t.pool] == nil {
			w.ledger.own(w.h, pk, t.pool)
		}
	}
	for i := range w.plan.Pools {
		pk := w.plan.Pools[i].Key
		if pk.IPv6 != w.ipv6 {
			continue
		}
		if _, ok := w.h.pools[pk]; !ok {
			w.state.lastPool++
			w.ledger.own(w.h, pk, w.state.lastPool)
		}
		w.pools[w.h.pools[pk]] = i
	}
	return nil
}

// reap deletes frontends that the plan does not have.
func (w *wanted) reap() {
	gone := w.ledger.release(w.h, func(k nftables.Key) bool { _, ok := w.keys[k]; return !ok })
	for _, k := range gone {
		if t, ok := w.state.svc[k]; ok {
			w.del(swap, Element{Set: setSvc, Key: k, Pool: t.pool, Class: t.class}.key())
		}
		if w.state.masq[k] {
			w.del(clean, Element{Set: setMasq, Key: k})
		}
	}
}

// fillPools brings the slots of the plan's pools to its endpoints.
func (w *wanted) fillPools() {
	for id, i := range w.pools {
		p := pool{change: w.change, state: w.state, id: id, have: w.state.slots[id]}
		p.fill(w.plan.Pools[i].Endpoints)
	}
}

// point makes every frontend point to its pool by the class of the pool. One that the plan no longer has follows
// its pool too, as long as that exists. It reports whether there are such.
func (w *wanted) point() (left bool) {
	for _, k := range w.h.keys {
		now, exists := w.state.svc[k]
		want, masq := now, w.state.masq[k]
		if i, ok := w.keys[k]; ok {
			f := &w.plan.Frontends[i]
			pool := &w.plan.Pools[f.Pool]
			want, masq = target{w.h.pools[pool.Key], classOf(pool.Class)}, f.Masquerade
		} else {
			left = true
			if i, ok := w.pools[now.pool]; ok && exists {
				want.class = classOf(w.plan.Pools[i].Class)
			}
			if !exists {
				continue
			}
		}
		w.pointKey(k, now, want, exists)
		w.masquerade(k, masq)
	}
	return left
}

func (w *wanted) pointKey(k nftables.Key, now, want target, exists bool) {
	w.classes[want.class] = true
	e := Element{Set: setSvc, Key: k, Pool: want.pool, Class: want.class}
	switch {
	case !exists:
		w.add(swap, e)
	case now != want:
		w.replace(swap, e)
	}
}

func (w *wanted) masquerade(k nftables.Key, want bool) {
	e := Element{Set: setMasq, Key: k}
	switch now := w.state.masq[k]; {
	case want && !now:
		w.add(prepare, e)
	case !want && now:
		w.del(clean, e)
	}
}

// cleanPools deletes the pools that no frontend of the Service needs.
func (w *wanted) cleanPools() {
	needed := map[uint32]bool{}
	for _, k := range w.h.keys {
		if _, ok := w.keys[k]; !ok {
			needed[w.state.svc[k].pool] = true
		}
	}
	for pk, id := range w.h.pools {
		if _, ok := w.pools[id]; ok || needed[id] {
			continue
		}
		p := pool{change: w.change, state: w.state, id: id, have: w.state.slots[id]}
		p.fill(nil)
		w.ledger.disown(w.h, pk)
	}
}

// holdAddrs takes the addresses of the plan. Without reap a ClusterIP that is gone stays refused at other ports.
func (w *wanted) holdAddrs(reap bool) {
	vips := w.ours(w.plan.ClusterIPs)
	if !reap {
		vips = union(vips, w.h.addrs[setVIP])
	}
	for set, addrs := range map[SetName][]netip.Addr{setHairpin: w.ours(w.plan.Hairpin), setVIP: vips, setPass: w.ours(w.plan.Pass)} {
		w.touch(set, addrs)
		w.touch(set, w.ledger.hold(w.h, set, addrs))
	}
}

// touch has finish compare the addresses with the state.
func (w *wanted) touch(set SetName, addrs []netip.Addr) {
	for _, a := range addrs {
		w.touched[set][a] = true
	}
}

func union(a, b []netip.Addr) []netip.Addr {
	out := slices.Concat(a, b)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// finish turns the addresses that changed hands into operations: they are in the kernel while anyone holds them.
func (a *assigner) finish(c *change) {
	for _, set := range addrSets {
		for addr := range c.touched[set] {
			e := Element{Set: set, Key: nftables.Key{Addr: addr}}
			switch held, there := a.ledger.addrs[set][addr] > 0, a.state.addrs[set][addr]; {
			case held && !there:
				c.add(prepare, e)
			case !held && there:
				c.del(clean, e)
			}
		}
	}
	for cl := range c.classes {
		if a.state.classes[cl] || cl == rejected || cl == dropped {
			delete(c.classes, cl)
		}
	}
}
