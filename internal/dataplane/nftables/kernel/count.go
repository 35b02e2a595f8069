//go:build linux

package kernel

import (
	"cmp"
	"net/netip"
	"slices"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// Connections are counted in elements: those of a pool by the element of count that its chain looks up last, those of
// an endpoint by its element of ep, which is looked up anyway. A Service's figures are as old as its pool: an endpoint
// that goes takes none of them away.

// verdicts are what can become of a connection to a pool.
const verdicts = model.Drop + 1

// uncounted is found by connections to pools whose counter somebody has deleted, so that it is their counter alone
// that is missing.
var uncounted = Element{Set: setCount}

// countedEndpoints is how many endpoints of a table have counters. A counter takes 16 bytes of each processor, twice
// the time to add an element, and twice the time to read it: more of them would be felt. Pools have theirs always.
const countedEndpoints = 1 << 14

// countEndpoints gives new elements of ep their counters, while there are not too many.
func (t *table) countEndpoints(elements []nfnl.Element) {
	for i := range elements {
		elements[i].Counted = len(t.state.eps)+i < countedEndpoints
	}
}

// counted looks up the pool's counter. The pool is where pool() has loaded it; the word after it is lost.
func (r ruleset) counted(v model.Verdict) []nfnl.Expr {
	pool := nfnl.R(r.rAfter() + 1)
	return seq(nfnl.Immediate(pool+1, nfnl.Number(uint32(v))), nfnl.Lookup(string(setCount), pool))
}

// countEnd are the rules of the chain of a class without endpoints.
func (r ruleset) countEnd(v model.Verdict, to string) []nfnl.Rule {
	chain := map[model.Verdict]string{model.Reject: chainRefused, model.Drop: chainDropped}[v]
	end := seq(nfnl.Decide(nfnl.Verdict{Code: nfnl.Goto, Chain: to}))
	return []nfnl.Rule{r.rule(chain, "count", r.pool(), r.counted(v), end), r.rule(chain, "look-up failed", end)}
}

// countPools gives the plan's pools counters of what can become of their connections. One that is not needed any more
// stays with its figure.
func (w *wanted) countPools() {
	added := map[count]bool{}
	need := func(id uint32, v model.Verdict) {
		if k := (count{id, v}); !w.state.counts[k] && !added[k] {
			added[k] = true
			w.add(prepare, Element{Set: setCount, Pool: id, Verdict: v})
		}
	}
	for id, i := range w.pools {
		need(id, w.plan.Pools[i].Class.Verdict)
	}
	for _, i := range w.keys {
		if f := &w.plan.Frontends[i]; len(f.Sources) > 0 {
			need(w.h.pools[w.plan.Pools[f.Pool].Key], model.Drop)
		}
	}
}

// Connections are how many new connections the kernel has counted. A client's packet that is sent again counts again
// where it is refused or dropped.
type Connections struct {
	Forwarded, Refused, Dropped uint64
}

func (c *Connections) add(v model.Verdict, n uint64) {
	switch v {
	case model.Forward:
		c.Forwarded += n
	case model.Reject:
		c.Refused += n
	case model.Drop:
		c.Dropped += n
	}
}

// PoolConnections are those to a port of a Service, by family and policy. They are as old as the port's first
// frontend in the kernel: they outlive this process, but not a change of the rules themselves.
type PoolConnections struct {
	Service model.ServiceName
	nftables.PoolKey
	Connections
	Endpoints []EndpointConnections // where one Service was asked for
}

// EndpointConnections are those forwarded to one endpoint.
type EndpointConnections struct {
	Addr      netip.AddrPort
	Forwarded uint64
	Counted   bool // false: there were too many endpoints to count each
}

// Connections reads the counters of all Services, or of one with its endpoints if only is not the zero name, sorted.
// The first takes some milliseconds at 10,000 Services, during which no change is programmed.
func (a *Applier) Connections(only model.ServiceName) (all []PoolConnections, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tables {
		var of []PoolConnections
		switch {
		case t.outdated:
		case only == model.ServiceName{}:
			of, err = t.connections()
		default:
			of, err = t.connectionsOf(only)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	slices.SortFunc(all, func(a, b PoolConnections) int {
		return cmp.Or(a.Service.Compare(b.Service), a.PoolKey.Compare(b.PoolKey))
	})
	return all, nil
}

// connections reads the counters of all pools.
func (t *table) connections() (all []PoolConnections, err error) {
	at := map[uint32]int{}
	for _, h := range t.ledger.services {
		for k, id := range h.pools {
			at[id] = len(all)
			all = append(all, PoolConnections{Service: h.name, PoolKey: k})
		}
	}
	var found map[count]uint64
	err = t.kernel.Elements(t.id, t.table, string(setCount), func() { found = map[count]uint64{} }, func(n nfnl.Element) {
		if e, ok := t.decode(setCount, n); ok && n.Packets > 0 {
			found[count{e.Pool, e.Verdict}] = n.Packets
		}
	})
	for k, n := range found {
		if i, ok := at[k.pool]; ok {
			all[i].add(k.verdict, n)
		}
	}
	return all, ignoreMissing(err)
}

// connectionsOf reads those of one Service, one by one.
func (t *table) connectionsOf(name model.ServiceName) (all []PoolConnections, err error) {
	h := t.ledger.services[name]
	if h == nil {
		return nil, nil
	}
	for k, id := range h.pools {
		c, err := t.poolConnections(id)
		if err != nil {
			return nil, err
		}
		p := PoolConnections{Service: name, PoolKey: k, Connections: c}
		for _, ep := range t.state.slots[id] {
			n, _, err := t.raw(Element{Set: setEp, Endpoint: ep})
			if err != nil {
				return nil, err
			}
			p.Endpoints = append(p.Endpoints, EndpointConnections{t.state.eps[ep], n.Packets, n.Counted})
		}
		all = append(all, p)
	}
	return all, nil
}

// poolConnections reads the counters of one pool.
func (t *table) poolConnections(id uint32) (c Connections, err error) {
	for v := range verdicts {
		n, _, err := t.raw(Element{Set: setCount, Pool: id, Verdict: v})
		if err != nil {
			return c, err
		}
		c.add(v, n.Packets)
	}
	return c, nil
}
