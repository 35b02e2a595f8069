//go:build linux

package kernel

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// Answer is what the kernel does with a new connection.
type Answer struct {
	Service     model.ServiceName
	Verdict     model.Verdict
	Affinity    time.Duration
	Endpoints   []netip.AddrPort // in the order of their slots, each equally likely
	Masquerade  bool
	Sources     []netip.Prefix // of the clients that are let in; empty: all
	Pool        uint32
	Connections // of the pool; Read only
}

// Lookup says what happens to a new connection with the key, by the elements last committed. It reports false for
// an address and port that is no frontend.
func (a *Applier) Lookup(k nftables.Key) (Answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tables {
		if t.ipv6 == k.Addr.Is6() {
			return t.lookup(k)
		}
	}
	return Answer{}, false
}

func (t *table) lookup(k nftables.Key) (Answer, bool) {
	to, ok := t.state.svc[k]
	if !ok {
		return Answer{}, false
	}
	out := Answer{Pool: to.pool, Masquerade: t.state.masq[k], Affinity: time.Duration(to.class.seconds) * time.Second}
	if h := t.ledger.keys[k]; h != nil {
		out.Service = h.name
	}
	if to.class.guarded {
		out.Sources = slices.SortedFunc(maps.Keys(t.state.allow[to.pool]), netip.Prefix.Compare)
	}
	switch to.class.base() {
	case rejected:
		out.Verdict, out.Affinity = model.Reject, 0
		return out, true
	case dropped:
		out.Verdict, out.Affinity = model.Drop, 0
		return out, true
	}
	for i, slots := 0, t.state.slots[to.pool]; i < int(to.class.n) && i < len(slots); i++ {
		out.Endpoints = append(out.Endpoints, t.state.eps[slots[i]])
	}
	return out, true
}
