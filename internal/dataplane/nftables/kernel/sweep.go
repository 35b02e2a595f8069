//go:build linux

package kernel

// sweep adds to c the deletion of everything in the state that no Service holds: what a previous process left, and
// the rest of changes that failed half-way. It looks at everything, so it is done after a start and after errors.
func (a *assigner) sweep(c *change) {
	for k := range a.state.svc {
		if a.ledger.keys[k] == nil {
			c.point[k] = pointing{gone: true}
		}
	}
	for k := range a.state.masq {
		if a.ledger.keys[k] == nil {
			c.del(clean, Element{Set: setMasq, Key: k})
		}
	}
	a.sweepPools(c)
	for _, set := range addrSets {
		for addr := range a.state.addrs[set] {
			c.touched[set][addr] = true
		}
	}
	used := map[class]bool{rejected: true, dropped: true}
	for k, t := range a.state.svc {
		if a.ledger.keys[k] != nil {
			used[t.class], used[t.class.base()] = true, true
		}
	}
	for cl := range a.state.classes {
		if !used[cl] {
			c.del(clean, Element{Set: setClass, Class: cl})
		}
	}
}

func (a *assigner) sweepPools(c *change) {
	needed := make(map[uint32]bool, len(a.state.eps))
	for id, slots := range a.state.slots {
		held := a.ledger.pools[id] != nil
		for i, ep := range slots {
			switch {
			case held:
				needed[ep] = true
			case ep != 0:
				c.del(clean, Element{Set: setSlot, Pool: id, Slot: uint32(i)})
			}
		}
	}
	for id, prefixes := range a.state.allow {
		for p := range prefixes {
			if a.ledger.pools[id] == nil {
				c.del(clean, Element{Set: setAllow, Pool: id, Prefix: p})
			}
		}
	}
	for k := range a.state.counts {
		if k.pool != uncounted.Pool && a.ledger.pools[k.pool] == nil {
			c.del(clean, Element{Set: setCount, Pool: k.pool, Verdict: k.verdict})
		}
	}
	for ep := range a.state.eps {
		if !needed[ep] {
			c.del(clean, Element{Set: setEp, Endpoint: ep})
		}
	}
}
