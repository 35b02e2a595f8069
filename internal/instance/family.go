package instance

import (
	"fmt"
	"net/netip"
	"slices"
)

// Family is the ranges of one IP family.
type Family struct {
	IPv6        bool         `json:"ipv6,omitempty"`
	NodeCIDR    netip.Prefix `json:"nodeCIDR"`    // the LAN of nodes and host
	PodCIDR     netip.Prefix `json:"podCIDR"`     // of all nodes' pods
	ServiceCIDR netip.Prefix `json:"serviceCIDR"` // of ClusterIPs
}

// defaults of the two families. Those of IPv6 are unique local addresses (RFC 4193) that read like those of IPv4.
var (
	defaults4 = Family{
		NodeCIDR: netip.MustParsePrefix("172.30.0.0/24"), PodCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"),
	}
	defaults6 = Family{
		IPv6: true, NodeCIDR: netip.MustParsePrefix("fd00:172:30::/64"), PodCIDR: netip.MustParsePrefix("fd00:10:244::/56"),
		ServiceCIDR: netip.MustParsePrefix("fd00:10:96::/112"),
	}
)

// limits of one family: how long the prefixes of its ranges may be, and how long that of one node's pods is.
type limits struct{ node, pods, service, nodePods int }

func (f Family) limits() limits {
	if f.IPv6 {
		return limits{node: 116, pods: 64, service: 123, nodePods: 64}
	}
	return limits{node: 28, pods: 24, service: 27, nodePods: 24}
}

// name is the family's, as users write it.
func (f Family) name() string {
	if f.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// ParseFamilies reads ipv4, ipv6 or dual. The families have no ranges yet; the first is that of Services which ask
// for none.
func ParseFamilies(s string) ([]Family, error) {
	switch s {
	case "ipv4":
		return []Family{{}}, nil
	case "ipv6":
		return []Family{{IPv6: true}}, nil
	case "dual":
		return []Family{{}, {IPv6: true}}, nil
	}
	return nil, fmt.Errorf("give --ip-family ipv4, ipv6 or dual: %q is none of them", s)
}

// SetRanges takes what a flag gives: one range of each family at most. An unset family keeps what it has.
func SetRanges(families []Family, flag string, given []netip.Prefix, field func(*Family) *netip.Prefix) error {
	set := map[bool]bool{}
	for _, p := range given {
		i := slices.IndexFunc(families, func(f Family) bool { return f.IPv6 == p.Addr().Is6() })
		switch {
		case i < 0:
			return fmt.Errorf("give --ip-family dual too, or leave out %s: --%s is of a family that the instance does not have", p, flag)
		case set[families[i].IPv6]:
			return fmt.Errorf("give --%s one range of each IP family: %s is the second of its own", flag, p)
		}
		set[families[i].IPv6] = true
		*field(&families[i]) = p
	}
	return nil
}

// complete fills what is missing.
func (f Family) complete() Family {
	defaults := defaults4
	if f.IPv6 {
		defaults = defaults6
	}
	for _, r := range []struct{ have, otherwise *netip.Prefix }{
		{&f.NodeCIDR, &defaults.NodeCIDR}, {&f.PodCIDR, &defaults.PodCIDR}, {&f.ServiceCIDR, &defaults.ServiceCIDR},
	} {
		if !r.have.IsValid() {
			*r.have = *r.otherwise
		}
		*r.have = r.have.Masked()
	}
	return f
}

func (f Family) check(nodes int) error {
	l := f.limits()
	ranges := []struct {
		flag   string
		prefix netip.Prefix
		max    int
	}{{"--node-cidr", f.NodeCIDR, l.node}, {"--pod-cidr", f.PodCIDR, l.pods}, {"--service-cidr", f.ServiceCIDR, l.service}}
	for i, r := range ranges {
		if r.prefix.Addr().Is6() != f.IPv6 || r.prefix.Bits() > r.max {
			return fmt.Errorf("give %s an %s range of /%d or larger: %s is none", r.flag, f.name(), r.max, r.prefix)
		}
		for _, o := range ranges[:i] {
			if r.prefix.Overlaps(o.prefix) {
				return fmt.Errorf("choose ranges apart from each other: %s %s overlaps %s %s", o.flag, o.prefix, r.flag, r.prefix)
			}
		}
	}
	room := 1 << min(l.nodePods-f.PodCIDR.Bits(), 16)
	if nodes >= room && f.PodCIDR.Bits() < l.nodePods || nodes > room {
		return fmt.Errorf("give --pod-cidr a larger range: %s has no /%d for each of %d nodes", f.PodCIDR, l.nodePods, nodes)
	}
	return nil
}

// HostAddr is the host's address on the node network: its first.
func (f Family) HostAddr() netip.Addr { return f.NodeCIDR.Addr().Next() }

// firstNode is the address of node1: .11, or ::11.
func (f Family) firstNode() netip.Addr {
	if f.IPv6 {
		return add(f.NodeCIDR.Addr(), 0x11, 0)
	}
	return add(f.NodeCIDR.Addr(), 11, 0)
}

// NodePodCIDR is the range of the i-th node's pods, counted from 0.
func (f Family) NodePodCIDR(i int) netip.Prefix {
	bits := f.limits().nodePods
	if f.PodCIDR.Bits() == bits {
		return f.PodCIDR
	}
	return netip.PrefixFrom(add(f.PodCIDR.Addr(), i+1, f.PodCIDR.Addr().BitLen()-bits), bits)
}

// DNSAddr is the address of Service kube-system/kube-dns: the tenth of the service range.
func (f Family) DNSAddr() netip.Addr { return add(f.ServiceCIDR.Addr(), 10, 0) }

// APIServiceAddr is the address of Service default/kubernetes: the first of the service range.
func (f Family) APIServiceAddr() netip.Addr { return add(f.ServiceCIDR.Addr(), 1, 0) }

// LoadBalancerRange is what LoadBalancer Services get without a configuration: .200 to .250, or ::200 to ::250, in
// every network that is large enough, else the last quarter.
func (f Family) LoadBalancerRange() (first, last netip.Addr) {
	from, to := 200, 250
	if f.IPv6 {
		from, to = 0x200, 0x250
	}
	if bits := f.NodeCIDR.Addr().BitLen() - f.NodeCIDR.Bits(); bits < 16 && to >= 1<<bits {
		from, to = 1<<bits*3/4, 1<<bits-2
	}
	return add(f.NodeCIDR.Addr(), from, 0), add(f.NodeCIDR.Addr(), to, 0)
}

// add is a + n<<shift. shift is a multiple of 8.
func add(a netip.Addr, n, shift int) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1 - shift/8; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum
}

// collect is one thing of each family, in their order.
func collect[T any](c Config, of func(Family) T) (all []T) {
	for _, f := range c.Families {
		all = append(all, of(f))
	}
	return all
}

// NodeCIDRs, PodCIDRs and ServiceCIDRs are the ranges of each family, in their order.
func (c Config) NodeCIDRs() []netip.Prefix {
	return collect(c, func(f Family) netip.Prefix { return f.NodeCIDR })
}
func (c Config) PodCIDRs() []netip.Prefix {
	return collect(c, func(f Family) netip.Prefix { return f.PodCIDR })
}
func (c Config) ServiceCIDRs() []netip.Prefix {
	return collect(c, func(f Family) netip.Prefix { return f.ServiceCIDR })
}

// HostAddrs are the host's addresses on the node network, DNSAddrs those of Service kube-system/kube-dns.
func (c Config) HostAddrs() []netip.Addr { return collect(c, Family.HostAddr) }
func (c Config) DNSAddrs() []netip.Addr  { return collect(c, Family.DNSAddr) }

// NodePodCIDRs are the ranges of the i-th node's pods.
func (c Config) NodePodCIDRs(i int) []netip.Prefix {
	return collect(c, func(f Family) netip.Prefix { return f.NodePodCIDR(i) })
}

// HasIPv6 reports whether one of the families is IPv6.
func (c Config) HasIPv6() bool {
	return slices.ContainsFunc(c.Families, func(f Family) bool { return f.IPv6 })
}
