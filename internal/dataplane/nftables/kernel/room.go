//go:build linux

package kernel

import (
	"fmt"

	"minato/internal/nfnl"
)

// maxSlots is the most endpoints that a pool can have. State has a slice of that length.
const maxSlots = 1 << 20

// TooLargeError says that a port of a Service has more of something than the tables can hold.
type TooLargeError struct {
	What       string // what the user can do
	Have, Most int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s: %d of at most %d", e.What, e.Have, e.Most)
}

// fits reports whether the tables can hold the plan. Nothing is claimed before.
func (w *wanted) fits() error {
	for i := range w.plan.Pools {
		p := &w.plan.Pools[i]
		if p.Key.IPv6 != w.ipv6 {
			continue
		}
		if n := len(p.Endpoints); n > maxSlots {
			return &TooLargeError{fmt.Sprintf("spread the endpoints of port %q over more Services", p.Key.Port), n, maxSlots}
		}
		if _, known := w.h.pools[p.Key]; known {
			continue
		}
		if n := len(w.label(p.Key)); n > nfnl.MaxComment {
			return &TooLargeError{"shorten the names of Service and port", n, nfnl.MaxComment}
		}
	}
	return nil
}

// nextID gives the next id after the last one. After four billions they begin anew, with 1: what was remembered for a
// client by an id as old was forgotten long ago.
func nextID(last *uint32, taken func(uint32) bool) uint32 {
	for {
		if *last++; *last != 0 && !taken(*last) {
			return *last
		}
	}
}

// newPool gives a new pool its id.
func (w *wanted) newPool() uint32 {
	return nextID(&w.state.lastPool, func(id uint32) bool {
		for v := range verdicts {
			if w.state.counts[count{id, v}] {
				return true
			}
		}
		return w.ledger.pools[id] != nil || w.ledger.orphans[id] != nil || w.state.slots[id] != nil || w.state.allow[id] != nil
	})
}
