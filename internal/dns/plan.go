package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// records is what one Service gives to DNS, in logical form and canonical order: equal records are equal values.
type records struct {
	names    []named
	pointers []pointer
}

// named is a name below the cluster domain with what it stands for. One without items and without a target exists
// only because names below it do: an empty non-terminal (RFC 8020).
type named struct {
	name   string // wire
	items  []item
	target string // of an ExternalName, in wire form
}

// item is one address and port behind a name. A name's A, AAAA and SRV records all follow from its items.
type item struct {
	target string // wire name that SRV records point to
	addr   netip.Addr
	port   uint16 // 0: the Service has no ports, so no SRV record
	near   uint8  // 0 first, for topology; see distance
}

func (a item) compare(b item) int {
	return cmp.Or(cmp.Compare(a.near, b.near), a.addr.Compare(b.addr), cmp.Compare(a.port, b.port), strings.Compare(a.target, b.target))
}

// pointer is one PTR record.
type pointer struct {
	addr    netip.Addr
	target  string // wire
	cluster bool   // addr is a ClusterIP: it is named by one Service, whoever else has it as an endpoint
	dashed  bool   // the target is made from the address, and stands behind one with a hostname
}

func (a pointer) compare(b pointer) int {
	return cmp.Or(before(a.cluster, b.cluster), before(b.dashed, a.dashed), strings.Compare(a.target, b.target), a.addr.Compare(b.addr))
}

// before orders true in front of false.
func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// recordsOf computes the records of s as node n sees them: the topology preference of a headless Service orders its
// answers. It is pure; a nil Service has none.
func (z *zone) recordsOf(s *model.Service, n *model.Node) records {
	if s == nil || !z.options.exposed(s.Name.Namespace) {
		return records{}
	}
	base := z.under(s.Name.Name, s.Name.Namespace, "svc")
	if base == "" {
		return records{}
	}
	g := gathering{base: base, podNames: z.options.EndpointPodNames, names: make([]named, 0, 1+2*len(s.Ports))}
	switch {
	case s.Type == model.TypeExternalName:
		g.external(s.ExternalName)
		return g.records()
	case !s.Headless:
		g.clusterIP(s, z.options.IgnoreEmptyService && !anyReady(s))
	}
	if !z.options.NoEndpoints {
		g.endpoints(s, n)
	}
	return g.records()
}

// gathering collects the records of one Service.
type gathering struct {
	base     string // wire name of the Service
	podNames bool
	names    []named
	byName   map[string]int // index in names; made when there are many
	pointers []pointer
}

const fewNames = 16 // that are looked through faster than a map is made

// at finds a name, or adds it. It is valid until the next call.
func (g *gathering) at(name string) *named {
	if g.byName == nil {
		for i := range g.names {
			if g.names[i].name == name {
				return &g.names[i]
			}
		}
	} else if i, ok := g.byName[name]; ok {
		return &g.names[i]
	}
	g.names = append(g.names, named{name: name})
	if g.byName != nil {
		g.byName[name] = len(g.names) - 1
	} else if len(g.names) > fewNames {
		g.byName = make(map[string]int, 4*fewNames)
		for i := range g.names {
			g.byName[g.names[i].name] = i
		}
	}
	return &g.names[len(g.names)-1]
}

func (g *gathering) add(name string, i item) {
	if name != "" {
		n := g.at(name)
		n.items = append(n.items, i)
	}
}

// addPort adds the item under the Service and, when the port has a name, under _port._protocol.
func (g *gathering) addPort(port string, p model.Protocol, i item) {
	g.add(g.base, i)
	if port == "" {
		return
	}
	protocol := join(g.base, "_"+p.String())
	if name := join(protocol, "_"+port); name != "" {
		g.at(protocol)
		g.add(name, i)
	}
}

// external is a CNAME. An address is no name: such a Service has no records, as with CoreDNS (coredns#2324).
func (g *gathering) external(target string) {
	if _, err := netip.ParseAddr(target); err == nil {
		return
	}
	if wire, ok := parseName(target); ok && wire != "\x00" {
		g.at(g.base).target = wire
	}
}

// clusterIP are the records of the Service's own addresses. The addresses have their names also when, by an option, a
// Service without endpoints has none.
func (g *gathering) clusterIP(s *model.Service, hidden bool) {
	for _, a := range s.ClusterIPs {
		g.pointers = append(g.pointers, pointer{addr: a, target: g.base, cluster: true})
		if hidden {
			continue
		}
		for _, p := range s.Ports {
			g.addPort(p.Name, p.Protocol, item{target: g.base, addr: a, port: p.Port})
		}
	}
}

// endpoints are the names of single endpoints and, for a headless Service, its own records. ClusterIP Services have
// names of endpoints too, as with CoreDNS: the PTR record of a pod points to one.
func (g *gathering) endpoints(s *model.Service, n *model.Node) {
	for b := range s.AllBackends() {
		if !b.Ready {
			continue
		}
		name, dashed := g.endpoint(b)
		i := item{target: name, addr: b.Addr.Addr(), port: b.Addr.Port()}
		g.add(name, i)
		if name != "" {
			g.pointers = append(g.pointers, pointer{addr: i.addr, target: name, dashed: dashed})
		}
		if s.Headless {
			i.near = distance(s, b, n)
			g.addPort(b.PortName, b.Protocol, i)
		}
	}
}

func anyReady(s *model.Service) bool {
	for b := range s.AllBackends() {
		if b.Ready {
			return true
		}
	}
	return false
}

// endpoint is the name of one endpoint: its hostname, its pod's name where that is wanted and is a label, else its
// address with dashes.
func (g *gathering) endpoint(b *model.Backend) (name string, dashed bool) {
	if b.Hostname != "" {
		return join(g.base, b.Hostname), false
	}
	if _, pod, ok := strings.Cut(b.Target, "/"); ok && g.podNames && len(pod) <= 63 {
		return join(g.base, pod), false
	}
	return join(g.base, dashes(b.Addr.Addr())), true
}

// dashes is "10-244-1-5" or "2001-db8--1"; a final dash gets a zero, as with CoreDNS.
func dashes(a netip.Addr) string {
	b := a.AppendTo(make([]byte, 0, 48))
	for i, c := range b {
		if c == '.' || c == ':' {
			b[i] = '-'
		}
	}
	if b[len(b)-1] == '-' {
		b = append(b, '0')
	}
	return string(b)
}

// distance orders answers by trafficDistribution: near endpoints first, none left out, which the specification allows.
func distance(s *model.Service, b *model.Backend, n *model.Node) uint8 {
	switch {
	case n == nil || !s.PreferSameNode && !s.PreferSameZone:
		return 0
	case s.PreferSameNode && b.NodeName == n.Name:
		return 0
	case b.Zone != "" && b.Zone == n.Zone:
		return 1
	}
	return 2
}

func (g *gathering) records() records {
	r := records{names: g.names, pointers: g.pointers}
	for i := range r.names {
		slices.SortFunc(r.names[i].items, item.compare)
	}
	slices.SortFunc(r.names, func(a, b named) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(r.pointers, pointer.compare)
	r.pointers = slices.Compact(r.pointers)
	return r
}

func (a named) equal(b named) bool {
	return a.target == b.target && slices.Equal(a.items, b.items)
}

func (a records) equal(b records) bool {
	return slices.EqualFunc(a.names, b.names, func(x, y named) bool { return x.name == y.name && x.equal(y) }) &&
		slices.Equal(a.pointers, b.pointers)
}

// narrow is what old and next have in common, and so what may be answered while the world goes from one to the
// other. A name that next has with wholly other contents keeps the old ones: the addresses behind them stay
// programmed until the new ones are published, and NXDOMAIN in between would be cached.
func narrow(old, next records) records {
	var out records
	for _, o := range old.names {
		i, ok := slices.BinarySearchFunc(next.names, o.name, func(n named, name string) int { return strings.Compare(n.name, name) })
		if !ok {
			continue
		}
		kept := named{name: o.name, target: o.target}
		for _, it := range o.items {
			if _, ok := slices.BinarySearchFunc(next.names[i].items, it, item.compare); ok {
				kept.items = append(kept.items, it)
			}
		}
		if len(kept.items) == 0 {
			kept.items = o.items
		}
		out.names = append(out.names, kept)
	}
	stay := map[netip.Addr]bool{}
	for _, p := range next.pointers {
		stay[p.addr] = true
	}
	for _, p := range old.pointers {
		if stay[p.addr] {
			out.pointers = append(out.pointers, p)
		}
	}
	return out
}
