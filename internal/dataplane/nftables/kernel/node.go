//go:build linux

package kernel

import (
	"net/netip"
	"slices"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// nodeSets are the sets that depend on the node and its configuration alone.
var nodeSets = []SetName{setScope, setRange, setNode}

// nodeElements are the whole contents of nodeSets.
func (t *table) nodeElements(p nftables.NodePlan, cfg Config) map[SetName][]nfnl.Element {
	inside := number(number(nil, 0), uint32(model.Inside))
	outside := number(number(nil, 0), uint32(model.Outside))
	scope := []nfnl.Element{{CatchAll: true, Data: outside}}
	scope = append(scope, t.intervals(p.Inside, inside)...)
	out := map[SetName][]nfnl.Element{setScope: scope, setRange: t.intervals(cfg.ServiceCIDRs, nil), setNode: nil}
	source := p.Source4
	if t.ipv6 {
		source = p.Source6
	}
	if source.IsValid() {
		out[setNode] = []nfnl.Element{{Key: number(nil, 0), Data: t.addr(nil, source)}}
	}
	return out
}

// intervals turns prefixes of the family into elements: the first address, and the first one after. Neighbours are
// joined, because the kernel refuses an address twice.
func (t *table) intervals(in []netip.Prefix, data []byte) (out []nfnl.Element) {
	type span struct{ first, after netip.Addr } // after is invalid at the end of all addresses
	var spans []span
	for _, p := range in {
		if p.Addr().Is6() == t.ipv6 {
			first, last := bounds(p)
			spans = append(spans, span{first, last.Next()})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	var joined []span
	for _, s := range spans {
		if n := len(joined); n > 0 && (!joined[n-1].after.IsValid() || s.first.Compare(joined[n-1].after) <= 0) {
			if last := &joined[n-1]; last.after.IsValid() && (!s.after.IsValid() || s.after.Compare(last.after) > 0) {
				last.after = s.after
			}
			continue
		}
		joined = append(joined, s)
	}
	for _, s := range joined {
		out = append(out, nfnl.Element{Key: t.addr(nil, s.first), Data: data})
		if s.after.IsValid() {
			out = append(out, nfnl.Element{Key: t.addr(nil, s.after), End: true})
		}
	}
	return out
}
