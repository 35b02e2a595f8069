//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"minato/internal/netns"
)

// makeLAN makes the namespace with the bridge.
func (c *Config) makeLAN(j *journal) (*space, error) {
	lan, err := c.makeNetns(lanName, j)
	if err != nil {
		return nil, err
	}
	if err := c.makeBridge(lan); err != nil {
		lan.Close()
		return nil, err
	}
	return lan, nil
}

func (c *Config) makeBridge(lan *space) error {
	if err := setSysctls(lan.ns, lanSysctls(), c.refused); err != nil {
		return err
	}
	bridge, err := lan.link(bridgeLink)
	if err != nil {
		return err
	}
	if bridge == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeLink
		snooping := false // a handful of ports: nothing to learn about multicast
		if err := lan.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
			return fmt.Errorf("make bridge in %s: %w", lan.ns, err)
		}
		if bridge, err = lan.LinkByName(bridgeLink); err != nil {
			return fmt.Errorf("find bridge in %s: %w", lan.ns, err)
		}
	}
	// Pinned, because a bridge otherwise takes the least address of its ports, which changes as they come and go.
	return lan.setLink(bridge, hardwareAddr(c.Families[0].NodeCIDR.Addr()), c.mtu())
}

// connect joins another namespace to the bridge by a pair of links, and returns the link in that namespace.
func (c *Config) connect(ctx context.Context, lan *space, port string, to *space, name string, addr netip.Addr) (netlink.Link, error) {
	bridge, err := lan.LinkByName(bridgeLink)
	if err != nil {
		return nil, fmt.Errorf("find bridge in %s: %w", lan.ns, err)
	}
	near, far, err := c.pair(lan, port, to, name)
	if err != nil {
		return nil, err
	}
	if far == nil {
		if near, far, err = c.makePair(lan, port, to, name); err != nil {
			return nil, fmt.Errorf("link %s to the LAN: %w", to.ns, err)
		}
	}
	if near.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := lan.LinkSetMaster(near, bridge); err != nil {
			return nil, fmt.Errorf("add %s to the bridge: %w", port, err)
		}
	}
	if err := to.setLink(far, hardwareAddr(addr), c.mtu()); err != nil {
		return nil, err
	}
	if c.unlinked(port) {
		return far, lan.unlink(near)
	}
	if err := lan.setLink(near, nil, c.mtu()); err != nil {
		return nil, err
	}
	lan.settle(ctx, near)
	to.settle(ctx, far)
	return far, nil
}

func (c *Config) unlinked(port string) bool {
	return slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Unlinked && bridgePort(n.Name) == port })
}

// unlink takes a port of the bridge down, so that the link at its other end has no carrier: as if the cable was pulled.
// The node's own end keeps its addresses and routes.
func (s *space) unlink(port netlink.Link) error {
	if err := s.LinkSetDown(port); err != nil {
		return fmt.Errorf("take %s down in %s: %w", port.Attrs().Name, s.ns, err)
	}
	return nil
}

// ErrHostNode says that a node is the host itself, which has no link to a LAN of ours.
var ErrHostNode = errors.New("the node is the host itself")

// SetLinked pulls the cable of a node, or plugs it in again and waits until it carries. What happens to a node so does
// to the pods on it: they run on, and nobody else reaches them. Another Up needs Node.Unlinked to leave it so.
func (n *Network) SetLinked(ctx context.Context, name string, linked bool) error {
	node, err := n.node(name)
	if err != nil {
		return err
	}
	if node.Host {
		return ErrHostNode
	}
	lan, err := openSpace(netns.At(NetnsPath(n.cfg.Name, lanName)))
	if err != nil {
		return err
	}
	defer lan.Close()
	port, err := lan.LinkByName(bridgePort(name))
	if err != nil {
		return fmt.Errorf("find the port of %s in %s: %w", name, lan.ns, err)
	}
	if !linked {
		return lan.unlink(port)
	}
	if err := lan.setLink(port, nil, n.cfg.mtu()); err != nil {
		return err
	}
	far, err := node.LinkByName(uplink)
	if err != nil {
		return fmt.Errorf("find link %s in %s: %w", uplink, node.ns, err)
	}
	lan.settle(ctx, port)
	node.settle(ctx, far)
	return nil
}

// pair finds both ends of a link into the LAN. Ends that do not belong together are deleted.
func (c *Config) pair(lan *space, port string, to *space, name string) (near, far netlink.Link, err error) {
	if near, err = lan.link(port); err != nil {
		return nil, nil, err
	}
	if far, err = to.link(name); err != nil {
		return nil, nil, err
	}
	if far != nil && to.ns == c.HostNetns && far.Attrs().Alias != owner(c.Name) {
		return nil, nil, problem("remove link %s or choose another --name: it is not of instance %s", name, c.Name)
	}
	if near != nil && far != nil {
		file, err := to.file()
		if err != nil {
			return nil, nil, err
		}
		defer file.Close()
		id, err := lan.GetNetNsIdByFd(int(file.Fd()))
		if err == nil && near.Attrs().NetNsID == id && near.Attrs().ParentIndex == far.Attrs().Index {
			return near, far, nil
		}
	}
	return nil, nil, errors.Join(lan.deleteLink(port), to.deleteLink(name))
}

// makePair makes both ends. In a node's namespace its own end comes first and so has index 2, as that of a pod has
// in the pod's: no pod's link has the same index at both ends, which would delay it (see settle).
func (c *Config) makePair(lan *space, port string, to *space, name string) (near, far netlink.Link, err error) {
	if to.ns == c.HostNetns {
		err = c.makeHostPair(lan, port, to, name)
	} else {
		err = c.makeNodePair(lan, port, to, name)
	}
	if err != nil {
		return nil, nil, err
	}
	if near, err = lan.LinkByName(port); err != nil {
		return nil, nil, err
	}
	far, err = to.LinkByName(name)
	return near, far, err
}

func (c *Config) makeNodePair(lan *space, port string, to *space, name string) error {
	file, err := lan.file()
	if err != nil {
		return err
	}
	defer file.Close()
	veth := c.veth(name, port)
	veth.PeerNamespace = netlink.NsFd(file.Fd())
	return to.LinkAdd(veth)
}

// makeHostPair makes the pair in the LAN's namespace and marks the host's end before it moves there, so that
// nothing without a mark ever appears on the host.
func (c *Config) makeHostPair(lan *space, port string, to *space, name string) error {
	if err := lan.deleteLink(name); err != nil { // of a crash before it moved
		return err
	}
	if err := lan.LinkAdd(c.veth(port, name)); err != nil {
		return err
	}
	link, err := lan.LinkByName(name)
	if err != nil {
		return err
	}
	if err := lan.LinkSetAlias(link, owner(c.Name)); err != nil {
		return err
	}
	file, err := to.file()
	if err != nil {
		return err
	}
	defer file.Close()
	return lan.LinkSetNsFd(link, int(file.Fd()))
}

func (c *Config) veth(name, peer string) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, c.mtu()
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = peer, uint32(c.mtu())
	return veth
}
