//go:build linux

package kernel

import (
	"fmt"
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
	point   map[nftables.Key]pointing
	classes map[class]bool // in use; those without a chain get one in the first step
	touched map[SetName]map[netip.Addr]bool
	done    []func() // run when all steps are committed: what was deleted is given up
}

// pointing is what becomes of a frontend in step swap. Who holds it decides, whatever the Service says that has it in
// the kernel still.
type pointing struct {
	to     target
	gone   bool
	holder bool
}

func newChange() *change {
	c := &change{point: map[nftables.Key]pointing{}, classes: map[class]bool{}, touched: map[SetName]map[netip.Addr]bool{}}
	for _, set := range addrSets {
		c.touched[set] = map[netip.Addr]bool{}
	}
	return c
}

// reset empties the change and keeps its memory.
func (c *change) reset() {
	for i := range c.steps {
		o := &c.steps[i]
		o.del, o.add = o.del[:0], o.add[:0]
	}
	clear(c.point)
	clear(c.classes)
	for _, addrs := range c.touched {
		clear(addrs)
	}
	c.done = nil
}

func (c *change) len() int {
	n := len(c.point)
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
	w := wanted{assigner: a, change: c, h: h, plan: p, reap: reap, keys: map[nftables.Key]int{}, pools: map[uint32]int{}}
	err = w.fits()
	if err == nil {
		err = w.claim()
	}
	if err != nil {
		a.ledger.close(h)
		return false, err
	}
	if reap {
		w.deleteGone()
	}
	w.fillPools()
	left = w.pointAll()
	w.cleanPools()
	w.countPools()
	w.guardPools(left)
	w.holdAddrs()
	w.done = append(w.done, func() { w.ledger.close(w.h) })
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
	reap  bool
	keys  map[nftables.Key]int // to the index in plan.Frontends
	pools map[uint32]int       // id to the index in plan.Pools
}

// label names a pool in the kernel, so that it is known again after a restart and that nft says whose it is.
func (w *wanted) label(k nftables.PoolKey) string {
	return fmt.Sprintf("%s %s/%s %s", w.h.name, k.Port, k.Protocol, k.Policy)
}

// claim takes the plan's keys, and a pool for each of its pools: the one held, or the one of the same label to which
// a frontend points that nobody holds (after a restart), or a new one.
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
		if t, ok := w.state.svc[k]; ok && w.ledger.pools[t.pool] == nil && t.label == w.label(pk) {
			w.ledger.own(w.h, pk, t.pool)
		}
	}
	for i := range w.plan.Pools {
		pk := w.plan.Pools[i].Key
		if pk.IPv6 != w.ipv6 {
			continue
		}
		if _, ok := w.h.pools[pk]; !ok {
			w.ledger.own(w.h, pk, w.newPool())
		}
		w.pools[w.h.pools[pk]] = i
	}
	return nil
}

// deleteGone deletes the frontends that the plan does not have. One that another Service has claimed, but does not
// have in the kernel yet, stays.
func (w *wanted) deleteGone() {
	for _, k := range w.h.keys {
		if _, ok := w.keys[k]; ok || w.lingers(k) {
			continue
		}
		w.done = append(w.done, func() { w.ledger.release(w.h, k) })
		if w.ledger.keys[k] != w.h {
			continue
		}
		w.change.point[k] = pointing{gone: true, holder: true}
		if w.state.masq[k] {
			w.del(clean, Element{Set: setMasq, Key: k})
		}
	}
}

// lingers reports whether a frontend of another Service still points to a pool of this one.
func (w *wanted) lingers(k nftables.Key) bool {
	t, ok := w.state.svc[k]
	return ok && w.ledger.keys[k] != w.h && w.ledger.pools[t.pool] == w.h
}

// fillPools brings the slots of the plan's pools to its endpoints.
func (w *wanted) fillPools() {
	for id, i := range w.pools {
		p := pool{change: w.change, state: w.state, id: id, have: w.state.slots[id]}
		p.fill(w.plan.Pools[i].Endpoints)
	}
}

// pointAll makes every frontend point to its pool by the class of the pool. One that the plan no longer has follows
// its pool too, as long as that exists. It reports whether there are such.
func (w *wanted) pointAll() (left bool) {
	for _, k := range w.h.keys {
		if i, ok := w.keys[k]; ok {
			f := &w.plan.Frontends[i]
			p := &w.plan.Pools[f.Pool]
			c := classOf(p.Class)
			c.guarded = len(f.Sources) > 0
			w.pointKey(k, target{w.h.pools[p.Key], c, w.label(p.Key)}, true)
			w.masquerade(k, f.Masquerade)
			continue
		}
		if w.reap && !w.lingers(k) {
			continue
		}
		left = true
		now, exists := w.state.svc[k]
		if i, ok := w.pools[now.pool]; ok && exists {
			guarded := now.class.guarded
			now.class = classOf(w.plan.Pools[i].Class)
			now.class.guarded = guarded
			w.pointKey(k, now, w.ledger.keys[k] == w.h)
		}
	}
	return left
}

func (w *wanted) pointKey(k nftables.Key, to target, holder bool) {
	if w.change.point[k].holder && !holder {
		return
	}
	w.change.point[k] = pointing{to: to, holder: holder}
	w.classes[to.class], w.classes[to.class.base()] = true, true
}

// guardPools lets the clients in range in. While frontends that are gone still work, nobody is shut out.
func (w *wanted) guardPools(left bool) {
	want := map[uint32]map[netip.Prefix]bool{}
	for _, i := range w.keys {
		f := &w.plan.Frontends[i]
		id := w.h.pools[w.plan.Pools[f.Pool].Key]
		for _, p := range f.Sources {
			if want[id] == nil {
				want[id] = map[netip.Prefix]bool{}
			}
			want[id][p] = true
			if !w.state.allow[id][p] {
				w.add(prepare, Element{Set: setAllow, Pool: id, Prefix: p})
			}
		}
	}
	for _, id := range w.h.pools {
		for p := range w.state.allow[id] {
			if !left && !want[id][p] {
				w.del(clean, Element{Set: setAllow, Pool: id, Prefix: p})
			}
		}
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
		if _, ok := w.keys[k]; !ok && (!w.reap || w.lingers(k)) {
			needed[w.state.svc[k].pool] = true
		}
	}
	for pk, id := range w.h.pools {
		if _, ok := w.pools[id]; ok || needed[id] {
			continue
		}
		p := pool{change: w.change, state: w.state, id: id, have: w.state.slots[id]}
		p.fill(nil)
		for verdict := range verdicts {
			if w.state.counts[count{id, verdict}] {
				w.del(clean, Element{Set: setCount, Pool: id, Verdict: verdict})
			}
		}
		w.done = append(w.done, func() { w.ledger.disown(w.h, pk) })
	}
}

// holdAddrs takes the addresses of the plan. Without reap an address that is gone keeps its other ports closed.
func (w *wanted) holdAddrs() {
	vips, lbs := w.ours(w.plan.ClusterIPs), w.ours(w.plan.LoadBalancers)
	if !w.reap {
		vips, lbs = union(vips, w.h.addrs[setVIP]), union(lbs, w.h.addrs[setLB])
	}
	for set, addrs := range map[SetName][]netip.Addr{setHairpin: w.ours(w.plan.Hairpin), setVIP: vips, setLB: lbs,
		setPass: w.ours(w.plan.Pass)} {
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

// finish turns what several Services may have a say in into operations: frontends, and the addresses that are in the
// kernel while anyone holds them.
func (a *assigner) finish(c *change) {
	for k, p := range c.point {
		now, exists := a.state.svc[k]
		e := Element{Set: setSvc, Key: k, Pool: p.to.pool, Class: p.to.class, Label: p.to.label}
		switch {
		case p.gone && exists:
			c.del(swap, e.key())
		case p.gone || exists && now == p.to:
		case exists:
			c.replace(swap, e)
		default:
			c.add(swap, e)
		}
	}
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
