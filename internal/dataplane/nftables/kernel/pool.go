//go:build linux

package kernel

import "net/netip"

// pool is the work on one pool: from the endpoints in its slots to the ones wanted, with as few operations as there
// are changes. A pool of n endpoints has exactly n slots, so that each is chosen equally often.
type pool struct {
	*change
	state *State
	id    uint32
	have  []uint32 // endpoint of each slot
}

// fill adds the operations. Slots change in the first step: each goes from one endpoint that exists to another one,
// so it does not matter that a frontend still looks them up by its previous class. Slots above the new number, and
// endpoints that are gone, go in the last step, when no frontend counts them any more.
func (p *pool) fill(want []netip.AddrPort) {
	slots := make([]uint32, len(want))
	used, unplaced := p.keep(slots, want)
	moved := p.beyond(len(want), unplaced, used)
	fresh := unplacedInOrder(want, unplaced)
	for i := range slots {
		if slots[i] != 0 {
			continue
		}
		switch old := p.at(i); {
		case len(fresh) > 0 && old != 0 && !used[old] && p.exists(old):
			p.replace(prepare, Element{Set: setEp, Endpoint: old, Target: fresh[0]})
			slots[i], fresh = old, fresh[1:]
		case len(moved) > 0:
			slots[i], moved = moved[0], moved[1:]
		default:
			slots[i] = nextID(&p.state.lastEndpoint, p.exists)
			p.add(prepare, Element{Set: setEp, Endpoint: slots[i], Target: fresh[0]})
			fresh = fresh[1:]
		}
		used[slots[i]] = true
		p.set(i, slots[i])
	}
	p.clean(len(want), used)
}

// keep leaves in their slots the endpoints that are wanted. What is not placed is returned.
func (p *pool) keep(slots []uint32, want []netip.AddrPort) (used map[uint32]bool, unplaced map[netip.AddrPort]bool) {
	used, unplaced = make(map[uint32]bool, len(want)), make(map[netip.AddrPort]bool, len(want))
	for _, w := range want {
		unplaced[w] = true
	}
	for i := range slots {
		id := p.at(i)
		if addr, ok := p.state.eps[id]; ok && unplaced[addr] {
			slots[i] = id
			used[id] = true
			delete(unplaced, addr)
		}
	}
	return used, unplaced
}

// beyond finds endpoints that are wanted in slots from n on, which are about to go.
func (p *pool) beyond(n int, unplaced map[netip.AddrPort]bool, used map[uint32]bool) (moved []uint32) {
	for i := n; i < len(p.have); i++ {
		id := p.have[i]
		if addr, ok := p.state.eps[id]; ok && unplaced[addr] {
			moved = append(moved, id)
			used[id] = true
			delete(unplaced, addr)
		}
	}
	return moved
}

func unplacedInOrder(want []netip.AddrPort, unplaced map[netip.AddrPort]bool) (out []netip.AddrPort) {
	if len(unplaced) == 0 {
		return nil
	}
	for _, w := range want {
		if unplaced[w] {
			out = append(out, w)
		}
	}
	return out
}

func (p *pool) at(i int) uint32 {
	if i < len(p.have) {
		return p.have[i]
	}
	return 0
}

func (p *pool) exists(id uint32) bool { _, ok := p.state.eps[id]; return ok }

func (p *pool) set(i int, id uint32) {
	e := Element{Set: setSlot, Pool: p.id, Slot: uint32(i), Endpoint: id}
	switch p.at(i) {
	case id:
	case 0:
		p.add(prepare, e)
	default:
		p.replace(prepare, e)
	}
}

// clean deletes the slots from n on and the endpoints that are in no slot any more.
func (p *pool) clean(n int, used map[uint32]bool) {
	gone := map[uint32]bool{}
	for i, id := range p.have {
		if id == 0 {
			continue
		}
		if i >= n {
			p.del(clean, Element{Set: setSlot, Pool: p.id, Slot: uint32(i)})
		}
		if !used[id] && !gone[id] && p.exists(id) {
			gone[id] = true
			p.del(clean, Element{Set: setEp, Endpoint: id})
		}
	}
}
