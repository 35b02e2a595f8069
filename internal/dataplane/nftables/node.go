package nftables

import (
	"net/netip"
	"slices"

	"minato/internal/model"
)

// NodePlan is what the node's own addresses decide, apart from any Service.
type NodePlan struct {
	Name    string
	Zone    string
	Inside  []netip.Prefix // sources of scope Inside: pods of the node, the node itself
	Source4 netip.Addr     // what masqueraded connections come from
	Source6 netip.Addr
	Addrs   []netip.Addr // where NodePorts are answered
}

// PlanNode plans the node itself.
func PlanNode(n *model.Node) NodePlan {
	p := NodePlan{
		Name: n.Name, Zone: n.Zone, Addrs: append(n.NodePortAddrs(false), n.NodePortAddrs(true)...),
		Source4: n.Addr(false), Source6: n.Addr(true),
		Inside: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
	for _, a := range n.Addrs {
		p.Inside = append(p.Inside, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, c := range n.PodCIDRs {
		p.Inside = append(p.Inside, c.Masked())
	}
	p.Inside = distinct(p.Inside)
	return p
}

// distinct sorts prefixes and leaves out those which lie in another.
func distinct(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range in {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// Equal reports whether two plans are the same, so that plans of Services made with one hold with the other.
func (p NodePlan) Equal(o NodePlan) bool {
	return p.Name == o.Name && p.Zone == o.Zone && slices.Equal(p.Inside, o.Inside) && slices.Equal(p.Addrs, o.Addrs)
}
