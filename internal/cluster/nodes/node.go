//go:build linux

package nodes

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is a node that is up.
type node struct {
	Node
	*space
	mu     sync.Mutex   // held by Attach and Detach
	cursor []netip.Addr // per family: the address given last
	ports  bool         // there is a table of port mappings
}

// makeNode makes a node's namespace and all in it but pods, or repairs it. A Host node has nothing of its own to
// make but the way its pods get out, which is the host's table.
func (c *Config) makeNode(ctx context.Context, n Node, lan *space, j *journal) (*node, error) {
	if n.Host {
		s, err := openSpace(c.HostNetns)
		if err != nil {
			return nil, err
		}
		made := &node{Node: n, space: s, cursor: make([]netip.Addr, len(c.Families))}
		if err := c.repairPodRoutes(made); err != nil {
			s.Close()
			return nil, err
		}
		return made, nil
	}
	s, err := c.makeNetns(n.Name, j)
	if err != nil {
		return nil, err
	}
	made := &node{Node: n, space: s, cursor: make([]netip.Addr, len(c.Families))}
	if err := c.setNode(ctx, made, lan); err != nil {
		s.Close()
		return nil, err
	}
	return made, nil
}

func (c *Config) setNode(ctx context.Context, n *node, lan *space) error {
	link, err := c.connect(ctx, lan, bridgePort(n.Name), n.space, uplink, n.Addrs[0])
	if err != nil {
		return err
	}
	if err := setSysctls(n.ns, c.nodeSysctls(), c.refused); err != nil {
		return err
	}
	var addrs []netip.Prefix
	for i, f := range c.Families {
		addrs = append(addrs, netip.PrefixFrom(n.Addrs[i], f.NodeCIDR.Bits()))
	}
	if err := n.setAddresses(link, addrs); err != nil {
		return err
	}
	isStatic := func(r netlink.Route) bool { return !isPodRoute(r) }
	if err := n.setRoutes(c.nodeRoutes(n.Node, link.Attrs().Index), isStatic); err != nil {
		return err
	}
	if err := c.setEgress(n.Node); err != nil {
		return err
	}
	if err := setSysctls(n.ns, conntrackSysctls(), c.refused); err != nil { // there only now that rules track connections
		return err
	}
	return c.repairPodRoutes(n)
}

// nodeRoutes lead to the other nodes' pods and, for the rest, to the host. Each names the node's address as the
// source, which a node with more addresses would otherwise not always choose.
func (c *Config) nodeRoutes(n Node, link int) (all []netlink.Route) {
	for i, f := range c.Families {
		src := n.Addrs[i].AsSlice()
		all = append(all,
			route(f.PodCIDR, netlink.Route{Type: unix.RTN_UNREACHABLE}), // what is no pod's yet
			route(netip.PrefixFrom(unspecified(src), 0), netlink.Route{LinkIndex: link, Gw: f.HostAddr.AsSlice(), Src: src}))
		for _, other := range c.Nodes {
			if other.Name != n.Name {
				all = append(all, route(other.PodCIDRs[i], netlink.Route{LinkIndex: link, Gw: other.Addrs[i].AsSlice(), Src: src}))
			}
		}
	}
	return all
}

// unspecified is 0.0.0.0 or ::, of the family of an address.
func unspecified(addr []byte) netip.Addr {
	zero, _ := netip.AddrFromSlice(make([]byte, len(addr)))
	return zero
}

// isPodRoute reports whether a route of ours leads to one pod.
func isPodRoute(r netlink.Route) bool {
	return r.Type == unix.RTN_UNICAST && r.Gw == nil && prefixOf(r.Dst).IsSingleIP()
}

// repairPodRoutes restores the routes to pods. The kernel deletes them together with the node's address, which is
// their source; the pods' neighbour entries stay, and say which address is behind which link.
func (c *Config) repairPodRoutes(n *node) error {
	var wanted []netlink.Route
	for i, f := range c.Families {
		family := netlink.FAMILY_V4
		if f.ipv6() {
			family = netlink.FAMILY_V6
		}
		known, err := list(func() ([]netlink.Neigh, error) { return n.NeighList(0, family) })
		if err != nil {
			return fmt.Errorf("list neighbours in %s: %w", n.ns, err)
		}
		for _, k := range known {
			addr, _ := netip.AddrFromSlice(k.IP)
			if k.State&netlink.NUD_PERMANENT != 0 && n.PodCIDRs[i].Contains(addr) {
				wanted = append(wanted, route(single(addr), netlink.Route{LinkIndex: k.LinkIndex, Src: n.Addrs[i].AsSlice()}))
			}
		}
	}
	return n.setRoutes(wanted, func(netlink.Route) bool { return false })
}
