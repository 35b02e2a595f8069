//go:build linux

package kernel

import (
	"fmt"
	"net/netip"
	"slices"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// ledger says which Service holds which elements of a State. It is ahead of the State: what a Service claims it
// holds, whether or not the kernel has it already.
type ledger struct {
	services map[model.ServiceName]*holding
	keys     map[nftables.Key]*holding
	pools    map[uint32]*holding
	addrs    map[SetName]map[netip.Addr]int // how many Services hold the address
	// orphans are frontends found in the kernel at start, by their pool. They go with the Service that takes the pool
	// over, so that they stay true until they are reaped.
	orphans map[uint32][]nftables.Key
}

// holding is what one Service holds.
type holding struct {
	name  model.ServiceName
	pools map[nftables.PoolKey]uint32
	keys  []nftables.Key // sorted; also those that the plan no longer has, until they are reaped
	addrs map[SetName][]netip.Addr
}

func newLedger() *ledger {
	l := &ledger{
		services: map[model.ServiceName]*holding{},
		keys:     map[nftables.Key]*holding{},
		pools:    map[uint32]*holding{},
		addrs:    map[SetName]map[netip.Addr]int{},
		orphans:  map[uint32][]nftables.Key{},
	}
	for _, set := range addrSets {
		l.addrs[set] = map[netip.Addr]int{}
	}
	return l
}

// ConflictError says that a frontend belongs to another Service already.
type ConflictError struct {
	Key    nftables.Key
	Winner model.ServiceName
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is a frontend of Service %s already; give one of the two another address or port", e.Key, e.Winner)
}

// open finds the holding of a Service or starts one.
func (l *ledger) open(name model.ServiceName) *holding {
	h := l.services[name]
	if h == nil {
		h = &holding{name: name, pools: map[nftables.PoolKey]uint32{}, addrs: map[SetName][]netip.Addr{}}
		l.services[name] = h
	}
	return h
}

// claim gives the Service all keys of its plan. A key of another Service changes hands only if that Service's own
// plan no longer has it; else nothing is claimed.
func (l *ledger) claim(h *holding, keys []nftables.Key, stillWanted func(model.ServiceName, nftables.Key) bool) error {
	for _, k := range keys {
		if o := l.keys[k]; o != nil && o != h && stillWanted(o.name, k) {
			return &ConflictError{k, o.name}
		}
	}
	for _, k := range keys {
		o := l.keys[k]
		if o == h {
			continue
		}
		l.keys[k] = h
		h.keys = append(h.keys, k) // and in o.keys, while the kernel has it point to a pool of o
	}
	slices.SortFunc(h.keys, nftables.Key.Compare)
	h.keys = slices.Compact(h.keys)
	return nil
}

// release gives up a key, unless another Service has it by now.
func (l *ledger) release(h *holding, k nftables.Key) {
	if l.keys[k] == h {
		delete(l.keys, k)
	}
	h.keys = slices.DeleteFunc(h.keys, func(x nftables.Key) bool { return x == k })
}

// own gives a pool to the Service, with the frontends that nobody holds and that point to it.
func (l *ledger) own(h *holding, k nftables.PoolKey, id uint32) {
	h.pools[k] = id
	l.pools[id] = h
	for _, o := range l.orphans[id] {
		if l.keys[o] == nil {
			l.keys[o] = h
			h.keys = append(h.keys, o)
		}
	}
	delete(l.orphans, id)
}

// disown gives up a pool.
func (l *ledger) disown(h *holding, k nftables.PoolKey) {
	delete(l.pools, h.pools[k])
	delete(h.pools, k)
}

// hold makes addrs what the Service holds of a set, and returns what it held before.
func (l *ledger) hold(h *holding, set SetName, addrs []netip.Addr) (before []netip.Addr) {
	held := l.addrs[set]
	before = h.addrs[set]
	for _, a := range before {
		if held[a]--; held[a] == 0 {
			delete(held, a)
		}
	}
	for _, a := range addrs {
		held[a]++
	}
	h.addrs[set] = addrs
	return before
}

// close forgets a Service that holds nothing.
func (l *ledger) close(h *holding) {
	if len(h.keys) > 0 || len(h.pools) > 0 {
		return
	}
	for _, set := range addrSets {
		if len(h.addrs[set]) > 0 {
			return
		}
	}
	delete(l.services, h.name)
}
