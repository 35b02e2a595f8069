//go:build linux

package kernel

import (
	"iter"
	"net/netip"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// State is what the maps of one table hold: the elements that were committed, or that a dump has shown. It is
// changed by apply alone, after the kernel has taken the same change.
type State struct {
	svc     map[nftables.Key]target
	masq    map[nftables.Key]bool
	allow   map[uint32]map[netip.Prefix]bool // by pool
	slots   map[uint32][]uint32              // pool -> endpoint of each slot, 0 where there is none
	eps     map[uint32]netip.AddrPort
	addrs   map[SetName]map[netip.Addr]bool // of addrSets
	classes map[class]bool
	counts  map[count]bool

	// Ids are not given again before all others were, so that no remembered client and no packet underway can come to
	// another Service by an old id. They start after the highest that the kernel knows.
	lastPool, lastEndpoint uint32
}

type target struct {
	pool  uint32
	class class
	label string
}

// count is the key of a counter of connections.
type count struct {
	pool    uint32
	verdict model.Verdict
}

// addrSets are the sets whose elements are addresses that several Services may want.
var addrSets = []SetName{setHairpin, setVIP, setLB, setPass}

func newState() *State {
	s := &State{
		svc:     map[nftables.Key]target{},
		masq:    map[nftables.Key]bool{},
		allow:   map[uint32]map[netip.Prefix]bool{},
		slots:   map[uint32][]uint32{},
		eps:     map[uint32]netip.AddrPort{},
		addrs:   map[SetName]map[netip.Addr]bool{},
		classes: map[class]bool{},
		counts:  map[count]bool{},
	}
	for _, set := range addrSets {
		s.addrs[set] = map[netip.Addr]bool{}
	}
	return s
}

// apply changes the state by one element.
func (s *State) apply(e Element, del bool) {
	switch e.Set {
	case setSvc:
		put(s.svc, e.Key, target{e.Pool, e.Class, e.Label}, del)
		s.lastPool = max(s.lastPool, e.Pool)
	case setMasq:
		put(s.masq, e.Key, true, del)
	case setAllow:
		if s.allow[e.Pool] == nil {
			s.allow[e.Pool] = map[netip.Prefix]bool{}
		}
		put(s.allow[e.Pool], e.Prefix, true, del)
		put(s.allow, e.Pool, s.allow[e.Pool], len(s.allow[e.Pool]) == 0)
		s.lastPool = max(s.lastPool, e.Pool)
	case setSlot:
		s.setSlot(e, del)
	case setEp:
		put(s.eps, e.Endpoint, e.Target, del)
		s.lastEndpoint = max(s.lastEndpoint, e.Endpoint)
	case setClass:
		put(s.classes, e.Class, true, del)
	case setCount:
		put(s.counts, count{e.Pool, e.Verdict}, true, del)
		s.lastPool = max(s.lastPool, e.Pool)
	default:
		put(s.addrs[e.Set], e.Key.Addr, true, del)
	}
}

// installed notes the elements that come with the rules.
func (s *State) installed() {
	s.classes[rejected], s.classes[dropped], s.counts[count{}] = true, true, true
}

func put[K comparable, V any](m map[K]V, k K, v V, del bool) {
	if del {
		delete(m, k)
	} else {
		m[k] = v
	}
}

// setSlot keeps the slots of a pool in a slice without empty slots at its end.
func (s *State) setSlot(e Element, del bool) {
	s.lastPool = max(s.lastPool, e.Pool)
	slots := s.slots[e.Pool]
	if del {
		if int(e.Slot) < len(slots) {
			slots[e.Slot] = 0
		}
		for len(slots) > 0 && slots[len(slots)-1] == 0 {
			slots = slots[:len(slots)-1]
		}
		put(s.slots, e.Pool, slots, len(slots) == 0)
		return
	}
	for int(e.Slot) >= len(slots) {
		slots = append(slots, 0)
	}
	slots[e.Slot] = e.Endpoint
	s.slots[e.Pool] = slots
}

// elements goes over the elements of one set, in no order.
func (s *State) elements(set SetName) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		switch set {
		case setSvc:
			for k, t := range s.svc {
				if !yield(Element{Set: set, Key: k, Pool: t.pool, Class: t.class, Label: t.label}) {
					return
				}
			}
		case setMasq:
			for k := range s.masq {
				if !yield(Element{Set: set, Key: k}) {
					return
				}
			}
		case setAllow:
			for pool, prefixes := range s.allow {
				for p := range prefixes {
					if !yield(Element{Set: set, Pool: pool, Prefix: p}) {
						return
					}
				}
			}
		case setSlot:
			s.eachSlot(yield)
		case setEp:
			for id, t := range s.eps {
				if !yield(Element{Set: set, Endpoint: id, Target: t}) {
					return
				}
			}
		case setClass:
			for c := range s.classes {
				if !yield(Element{Set: set, Class: c}) {
					return
				}
			}
		case setCount:
			for c := range s.counts {
				if !yield(Element{Set: set, Pool: c.pool, Verdict: c.verdict}) {
					return
				}
			}
		default:
			for a := range s.addrs[set] {
				if !yield(Element{Set: set, Key: nftables.Key{Addr: a}}) {
					return
				}
			}
		}
	}
}

func (s *State) eachSlot(yield func(Element) bool) {
	for pool, slots := range s.slots {
		for i, ep := range slots {
			if ep != 0 && !yield(Element{Set: setSlot, Pool: pool, Slot: uint32(i), Endpoint: ep}) {
				return
			}
		}
	}
}
