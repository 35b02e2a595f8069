//go:build linux

package nodes

import (
	"fmt"
	"net/netip"
	"strings"

	"minato/internal/netns"
	"minato/internal/nfnl"
)

// egressPriority is after the Service layer's own source translation at 100: a connection is translated once, by
// the first chain that does.
const egressPriority = nfnl.PrioritySNAT + 1

// replaceTable makes a table anew, in one transaction with whatever was under that name.
func replaceTable(b *nfnl.Batch, t nfnl.Table) {
	b.AddTable(nfnl.Table{Family: t.Family, Name: t.Name})
	b.DeleteTable(t.Family, t.Name)
	b.AddTable(t)
}

// postrouting adds the one chain of a table that translates sources, with its rules.
func postrouting(b *nfnl.Batch, t nfnl.Table, priority int32, rules ...exprs) {
	const name = "postrouting"
	b.AddChain(nfnl.Chain{Family: t.Family, Table: t.Name, Name: name, Type: "nat", Hook: nfnl.Postrouting, Priority: priority})
	for _, r := range rules {
		b.AddRule(nfnl.Rule{Family: t.Family, Table: t.Name, Chain: name, Exprs: r})
	}
}

// commit applies a batch in a namespace.
func commit(ns netns.NS, b *nfnl.Batch) error {
	c, err := nfnl.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Commit(b); err != nil {
		return fmt.Errorf("in namespace %s: %w", ns, err)
	}
	return nil
}

// setEgress gives pods' traffic to the outside the node's address. Other pods and other nodes see the pod itself;
// the host does not, because it has no route to pods.
func (c *Config) setEgress(n Node) error {
	b := nfnl.NewBatch()
	for i, f := range c.Families {
		pods, addr := n.PodCIDRs[i], n.Addrs[i]
		t := nfnl.Table{Family: nfnl.FamilyOf(pods.Addr()), Name: EgressTable}
		replaceTable(b, t)
		b.AddSet(nfnl.Set{Family: t.Family, Table: t.Name, Name: "nodes", KeyType: addrType(addr), KeyLen: uint32(addr.BitLen() / 8)})
		for _, other := range c.Nodes {
			b.AddElements(t.Family, t.Name, "nodes", nfnl.Element{Key: other.Addrs[i].AsSlice()})
		}
		toNode := exprs{
			nfnl.Payload(nfnl.NetworkHeader, destination(addr), uint32(addr.BitLen()/8), nfnl.R(0)),
			nfnl.Lookup("nodes", nfnl.R(0)), nfnl.Decide(nfnl.Verdict{Code: nfnl.Accept}),
		}
		outside := all(within(source(addr), nfnl.Equal, pods), within(destination(addr), nfnl.NotEqual, f.PodCIDR),
			exprs{nfnl.Immediate(nfnl.R(0), addr.AsSlice()), nfnl.SNAT(t.Family, nfnl.R(0))})
		postrouting(b, t, egressPriority, toNode, outside)
	}
	return commit(c.netns(n), b)
}

// ofFamily is the part of what was before that a family's table carries.
func ofFamily(before []sysctlChange, f Family) (own []sysctlChange) {
	for _, s := range before {
		if strings.HasPrefix(s.Name, "net/ipv6/") == f.ipv6() {
			own = append(own, s)
		}
	}
	return own
}

func addrType(a netip.Addr) nfnl.Type {
	if a.Is4() {
		return nfnl.TypeAddr4
	}
	return nfnl.TypeAddr6
}

// setHostTable lets the nodes, or with a Host node its pods, out by the host's other links under the host's
// addresses. The comment of the table carries what the host was before, see forwardingBefore.
func (c *Config) setHostTable(before []sysctlChange) error {
	b := nfnl.NewBatch()
	for i, f := range c.Families {
		t := nfnl.Table{Family: nfnl.FamilyOf(f.PodCIDR.Addr()), Name: TableName(c.Name), Comment: encodeBefore(ofFamily(before, f))}
		replaceTable(b, t)
		leaves := all(within(source(f.NodeCIDR.Addr()), nfnl.Equal, f.NodeCIDR),
			throughLink(nfnl.MetaOIFName, nfnl.NotEqual, HostLink(c.Name)))
		if c.onHost() {
			pods := c.Nodes[0].PodCIDRs[i]
			leaves = all(within(source(pods.Addr()), nfnl.Equal, pods), within(destination(pods.Addr()), nfnl.NotEqual, f.PodCIDR))
		}
		postrouting(b, t, nfnl.PrioritySNAT, append(leaves, nfnl.Masquerade()))
	}
	return commit(c.HostNetns, b)
}

// deleteTables deletes the tables of a name, of whatever families there are.
func deleteTables(ns netns.NS, name string) error {
	c, err := nfnl.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	b := nfnl.NewBatch()
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		tables, err := c.Tables(f)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if t.Name == name {
				b.DeleteTable(f, name)
			}
		}
	}
	return c.Commit(b)
}
