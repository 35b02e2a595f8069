//go:build linux

package nodes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// PortMapping gives a port of a node to a port of a pod on it (hostPort).
type PortMapping struct {
	Protocol uint8      // as in the IP header
	HostAddr netip.Addr // the zero value is every address of the node, and 127.0.0.1
	HostPort uint16
	PodPort  uint16
}

// The table of a node's port mappings. The kernel is the record of them: every element has the link of its pod for a
// comment. A Service's frontend wins over a mapping, because its chains come first.
//
//	ports: address . protocol . port -> address . port of the pod
//	own  : address . address           of pods that may come back to themselves through a port of the node
const (
	portsSet = "ports"
	ownSet   = "own"
	// portsPriority is after the Service layer's translation of destinations.
	portsPriority = nfnl.PriorityDNAT + 1
	rawPriority   = -300 // before connections are tracked
)

func portsTable(instance string) string { return TableName(instance) + "-ports" }

// setPorts replaces the mappings of a pod, which is behind a link and has an address in each family. The node's mutex
// is held.
func (c *Config) setPorts(n *node, link string, addrs []netip.Prefix, ports []PortMapping) error {
	if len(ports) == 0 && !n.ports {
		return nil
	}
	conn, err := nfnl.Open(n.ns)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := nfnl.NewBatch()
	for i := range c.Families {
		c.addPortsTable(b, n, i)
		t := portElements{nfnl.Table{Family: nfnl.FamilyOf(c.Families[i].PodCIDR.Addr()), Name: portsTable(c.Name)}, n.Addrs[i]}
		old, err := t.existing(conn)
		if err != nil {
			return err
		}
		var pod netip.Addr
		if len(addrs) > i {
			pod = addrs[i].Addr()
		}
		t.replace(b, old, link, pod, ports)
	}
	if err := conn.Commit(b); err != nil {
		return fmt.Errorf("map ports of node %s: %w", n.Name, err)
	}
	n.ports = true
	return forgetFlows(conn, c.Families, n, ports)
}

// loadPorts finds out whether there are mappings from an earlier life of this program, and removes those of pods that
// went while it was away.
func (c *Config) loadPorts(n *node) error {
	conn, err := nfnl.Open(n.ns)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := nfnl.NewBatch()
	for i := range c.Families {
		t := portElements{nfnl.Table{Family: nfnl.FamilyOf(c.Families[i].PodCIDR.Addr()), Name: portsTable(c.Name)}, n.Addrs[i]}
		old, err := t.existing(conn)
		if err != nil {
			return err
		}
		for set, elements := range old {
			for _, e := range elements {
				n.ports = true
				link, err := n.link(e.Comment)
				if err != nil {
					return err
				}
				if link == nil {
					b.DeleteElements(t.Family, t.Name, set, nfnl.Element{Key: e.Key})
				}
			}
		}
	}
	return conn.Commit(b)
}

// portElements are the elements of one family's table.
type portElements struct {
	nfnl.Table
	node netip.Addr
}

// existing are the elements in the kernel by set; none where the table is not there.
func (t portElements) existing(conn *nfnl.Conn) (map[string][]nfnl.Element, error) {
	all := make(map[string][]nfnl.Element)
	for _, set := range []string{portsSet, ownSet} {
		err := conn.Elements(t.Family, t.Name, set, func() { delete(all, set) }, func(e nfnl.Element) {
			all[set] = append(all[set], nfnl.Element{Key: slices.Clone(e.Key), Comment: e.Comment})
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
	}
	return all, nil
}

// replace takes away what a link had, and what others had of its ports and addresses, and adds its mappings.
func (t portElements) replace(b *nfnl.Batch, old map[string][]nfnl.Element, link string, pod netip.Addr, ports []PortMapping) {
	wanted := map[string][]nfnl.Element{}
	for _, p := range ports {
		for _, addr := range t.hostAddrs(p) {
			key := portKey(addr, p.Protocol, p.HostPort)
			target := append(pod.AsSlice(), binary.BigEndian.AppendUint16(nil, p.PodPort)...)
			wanted[portsSet] = append(wanted[portsSet], nfnl.Element{Key: key, Data: append(target, 0, 0), Comment: link})
		}
	}
	if len(ports) > 0 {
		wanted[ownSet] = []nfnl.Element{{Key: append(pod.AsSlice(), pod.AsSlice()...), Comment: link}}
	}
	for set, elements := range old {
		for _, e := range elements {
			taken := slices.ContainsFunc(wanted[set], func(w nfnl.Element) bool { return slices.Equal(w.Key, e.Key) })
			if e.Comment == link || taken {
				b.DeleteElements(t.Family, t.Name, set, nfnl.Element{Key: e.Key})
			}
		}
	}
	for set, elements := range wanted {
		b.AddElements(t.Family, t.Name, set, elements...)
	}
}

// hostAddrs are the addresses of the table's family at which a mapping is.
func (t portElements) hostAddrs(p PortMapping) []netip.Addr {
	switch {
	case p.HostAddr.IsValid() && !p.HostAddr.IsUnspecified() && p.HostAddr.Is4() != t.node.Is4():
		return nil
	case p.HostAddr.IsValid() && !p.HostAddr.IsUnspecified():
		return []netip.Addr{p.HostAddr}
	case t.node.Is4():
		return []netip.Addr{t.node, loopback4}
	}
	return []netip.Addr{t.node} // Linux routes ::1 nowhere else
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func portKey(addr netip.Addr, protocol uint8, port uint16) []byte {
	return append(addr.AsSlice(), protocol, 0, 0, 0, byte(port>>8), byte(port), 0, 0)
}

// usesLoopback reports whether a mapping is at an address of the loopback, from which the kernel forwards only by a
// link that is told so.
func usesLoopback(ports []PortMapping) bool {
	return slices.ContainsFunc(ports, func(p PortMapping) bool {
		return !p.HostAddr.IsValid() || p.HostAddr.IsUnspecified() || p.HostAddr.IsLoopback()
	})
}

// addPortsTable writes the table of the i-th family with its rules, and leaves its elements alone.
func (c *Config) addPortsTable(b *nfnl.Batch, n *node, i int) {
	addr := n.Addrs[i]
	t := nfnl.Table{Family: nfnl.FamilyOf(c.Families[i].PodCIDR.Addr()), Name: portsTable(c.Name)}
	length := uint32(addr.BitLen() / 8)
	words := int(length / 4)
	b.AddTable(t)
	b.AddSet(nfnl.Set{Family: t.Family, Table: t.Name, Name: portsSet, Flags: nfnl.Map,
		KeyType: nfnl.Concat(addrType(addr), nfnl.TypeProto, nfnl.TypePort), KeyLen: length + 8,
		DataType: nfnl.Concat(addrType(addr), nfnl.TypePort), DataLen: length + 4})
	b.AddSet(nfnl.Set{Family: t.Family, Table: t.Name, Name: ownSet, KeyType: nfnl.Concat(addrType(addr), addrType(addr)), KeyLen: 2 * length})
	chain := func(name, kind string, hook nfnl.Hook, priority int32, rules ...exprs) {
		b.AddChain(nfnl.Chain{Family: t.Family, Table: t.Name, Name: name, Type: kind, Hook: hook, Priority: priority})
		b.FlushChain(t.Family, t.Name, name)
		for _, r := range rules {
			b.AddRule(nfnl.Rule{Family: t.Family, Table: t.Name, Chain: name, Exprs: r})
		}
	}
	target := nfnl.R(words + 2)
	toPod := exprs{
		nfnl.Payload(nfnl.NetworkHeader, destination(addr), length, nfnl.R(0)),
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(words)), nfnl.Payload(nfnl.TransportHeader, 2, 2, nfnl.R(words+1)),
		nfnl.LookupMap(portsSet, nfnl.R(0), target), nfnl.Counter(), nfnl.DNAT(t.Family, target, nfnl.R(2*words+2)),
	}
	chain("prerouting", "nat", nfnl.Prerouting, portsPriority, toPod)
	chain("output", "nat", nfnl.Output, portsPriority, toPod)
	asNode := exprs{nfnl.Immediate(nfnl.R(0), addr.AsSlice()), nfnl.SNAT(t.Family, nfnl.R(0))}
	toItself := exprs{
		nfnl.Payload(nfnl.NetworkHeader, source(addr), length, nfnl.R(0)),
		nfnl.Payload(nfnl.NetworkHeader, destination(addr), length, nfnl.R(words)), nfnl.Lookup(ownSet, nfnl.R(0)),
	}
	rules := []exprs{all(toItself, asNode)}
	if addr.Is4() {
		loopback := netip.PrefixFrom(loopback4, 8)
		fromLoopback := all(within(source(addr), nfnl.Equal, loopback), throughLink(nfnl.MetaOIFName, nfnl.NotEqual, "lo"))
		rules = append(rules, all(fromLoopback, asNode))
		// A link that forwards from the loopback would take packets for it as well (CVE-2020-8558).
		chain("guard", "filter", nfnl.Prerouting, rawPriority, all(within(destination(addr), nfnl.Equal, loopback),
			throughLink(nfnl.MetaIIFName, nfnl.NotEqual, "lo"), exprs{nfnl.Counter(), nfnl.Decide(nfnl.Verdict{Code: nfnl.Drop})}))
	}
	chain("postrouting", "nat", nfnl.Postrouting, egressPriority, rules...)
}

// forgetFlows ends the tracking of UDP to mapped ports, whose packets would go on to where they went before.
func forgetFlows(conn *nfnl.Conn, families []Family, n *node, ports []PortMapping) error {
	mapped := make(map[uint16]bool)
	for _, p := range ports {
		if p.Protocol == unix.IPPROTO_UDP {
			mapped[p.HostPort] = true
		}
	}
	if len(mapped) == 0 {
		return nil
	}
	for i, f := range families {
		var old []nfnl.Flow
		err := conn.Flows(nfnl.FamilyOf(f.PodCIDR.Addr()), unix.IPPROTO_UDP, func(flow nfnl.Flow) {
			if to := flow.Dst; mapped[to.Port()] && (to.Addr() == n.Addrs[i] || to.Addr().IsLoopback()) {
				old = append(old, flow)
			}
		})
		for _, flow := range old {
			err = errors.Join(err, conn.DeleteFlow(flow))
		}
		if err != nil {
			return fmt.Errorf("forget flows to mapped ports of node %s: %w", n.Name, err)
		}
	}
	return nil
}
