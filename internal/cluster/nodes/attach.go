//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/cluster/cni"
	"minato/internal/netns"
)

// The gateways of every pod. No link has them: each end of a pod's link knows the other's hardware address.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.MustParseAddr("fe80::1")
)

func (f Family) gateway() netip.Addr {
	if f.ipv6() {
		return gateway6
	}
	return gateway4
}

// AttachRequest asks for the link of a pod or, with HostNetwork, for the node's own namespace.
type AttachRequest struct {
	Node        string
	Netns       string // path where the sandbox's network namespace is mounted
	ContainerID string // of the sandbox; identifies the link from now on
	IfName      string // of the pod's end; empty is eth0
	HostNetwork bool
	Ports       []PortMapping // ports of the node that lead to the pod; not with HostNetwork
}

// AttachResult says what the pod got.
type AttachResult struct {
	IfName   string // empty with HostNetwork
	MAC      string // empty with HostNetwork
	MTU      int
	Addrs    []netip.Prefix // one per family: of the pod or, with HostNetwork, of the node
	Gateways []netip.Addr   // one per family; none with HostNetwork
}

// Attach links a sandbox to its node and gives it addresses. Asked again for the same container it answers the
// same, and completes what an earlier Attach has left undone. Errors are ErrNoNode, ErrNoAddress or of the kernel;
// after one, nothing of the link is left.
func (n *Network) Attach(ctx context.Context, req AttachRequest) (AttachResult, error) {
	node, err := n.node(req.Node)
	if err != nil {
		return AttachResult{}, err
	}
	if err := ctx.Err(); err != nil {
		return AttachResult{}, err
	}
	if req.HostNetwork {
		return n.bind(node, req)
	}
	if req.IfName == "" {
		req.IfName = "eth0"
	}
	node.mu.Lock()
	defer node.mu.Unlock()
	result, err := n.cfg.attach(ctx, node, req)
	if err != nil {
		err = fmt.Errorf("attach container %s to node %s: %w", req.ContainerID, req.Node, err)
		return AttachResult{}, errors.Join(err, node.deleteLink(podLink(req.ContainerID)))
	}
	return result, nil
}

// bind puts the node's namespace in the place of the sandbox's.
func (n *Network) bind(node *node, req AttachRequest) (AttachResult, error) {
	path := node.ns.Path()
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	if err := cni.BindNode(req.Netns, path); err != nil {
		return AttachResult{}, err
	}
	result := AttachResult{MTU: n.cfg.mtu()}
	for i, f := range n.cfg.Families {
		result.Addrs = append(result.Addrs, netip.PrefixFrom(node.Addrs[i], f.NodeCIDR.Bits()))
	}
	return result, nil
}

// Detach removes what Attach has made. What is not there is no error. It needs ContainerID only; with a Node it
// looks there alone. A sandbox with HostNetwork has nothing to remove.
func (n *Network) Detach(ctx context.Context, req AttachRequest) error {
	for name, node := range n.nodes {
		if req.Node != "" && name != req.Node {
			continue
		}
		node.mu.Lock()
		err := errors.Join(node.deleteLink(podLink(req.ContainerID)), n.cfg.setPorts(node, podLink(req.ContainerID), nil, nil))
		node.mu.Unlock()
		if err != nil {
			return fmt.Errorf("detach container %s: %w", req.ContainerID, err)
		}
	}
	return nil
}

// attach makes the link and its addresses, or finds them. The node's mutex is held.
func (c *Config) attach(ctx context.Context, n *node, req AttachRequest) (AttachResult, error) {
	sandbox, err := os.Open(req.Netns)
	if err != nil {
		return AttachResult{}, err
	}
	defer sandbox.Close()
	pod, err := openSpace(netns.At(req.Netns))
	if err != nil {
		return AttachResult{}, err
	}
	defer pod.Close()
	near, far, err := c.podPair(n, pod, sandbox, req)
	if err != nil {
		return AttachResult{}, err
	}
	if err := setSysctls(n.ns, podLinkSysctls(near.Attrs().Name), c.refused); err != nil {
		return AttachResult{}, err
	}
	if err := n.setLink(near, nil, c.mtu()); err != nil {
		return AttachResult{}, err
	}
	result := AttachResult{IfName: req.IfName, MAC: far.Attrs().HardwareAddr.String(), MTU: c.mtu()}
	for i, f := range c.Families {
		addr, err := n.claim(i, near)
		if err != nil {
			return AttachResult{}, err
		}
		result.Addrs = append(result.Addrs, single(addr))
		result.Gateways = append(result.Gateways, f.gateway())
		if err := setNeighbour(n.space, near, addr, far); err != nil {
			return AttachResult{}, err
		}
	}
	if err := c.setPod(pod, far, near, result); err != nil {
		return AttachResult{}, err
	}
	if usesLoopback(req.Ports) {
		if err := setSysctls(n.ns, []sysctl{{"net/ipv4/conf/" + near.Attrs().Name + "/route_localnet", "1", false}}, c.refused); err != nil {
			return AttachResult{}, err
		}
	}
	if err := c.setPorts(n, near.Attrs().Name, result.Addrs, req.Ports); err != nil {
		return AttachResult{}, err
	}
	n.settle(ctx, near)
	pod.settle(ctx, far)
	return result, nil
}

// podPair finds or makes both ends of a pod's link. Their hardware addresses are ours, so that each end can know
// the other's from the start.
func (c *Config) podPair(n *node, pod *space, sandbox *os.File, req AttachRequest) (near, far netlink.Link, err error) {
	name := podLink(req.ContainerID)
	if near, err = n.link(name); err != nil {
		return nil, nil, err
	}
	if near != nil {
		if far, err = pod.link(req.IfName); err != nil {
			return nil, nil, err
		}
		if far != nil && far.Attrs().ParentIndex == near.Attrs().Index {
			return near, far, nil
		}
		if err := n.deleteLink(name); err != nil {
			return nil, nil, err
		}
	}
	veth := c.veth(name, req.IfName)
	veth.HardwareAddr, veth.PeerHardwareAddr = hardwareAddr(gateway4), podHardwareAddr(req.ContainerID)
	veth.PeerNamespace = netlink.NsFd(sandbox.Fd())
	if err := n.LinkAdd(veth); err != nil {
		return nil, nil, fmt.Errorf("make link %s: %w", name, err)
	}
	if near, err = n.LinkByName(name); err != nil {
		return nil, nil, err
	}
	if n.Host { // where it is not alone in its namespace it carries the mark by which Delete finds it
		if err := n.LinkSetAlias(near, owner(c.Name)); err != nil {
			return nil, nil, err
		}
	}
	far, err = pod.LinkByName(req.IfName)
	return near, far, err
}

// setPod configures the pod's end.
func (c *Config) setPod(pod *space, link, near netlink.Link, r AttachResult) error {
	if err := setSysctls(pod.ns, c.podSysctls(link.Attrs().Name), c.refused); err != nil {
		return err
	}
	if err := pod.setAddresses(link, r.Addrs); err != nil {
		return err
	}
	if err := pod.setLink(link, nil, c.mtu()); err != nil {
		return err
	}
	for _, gw := range r.Gateways {
		if err := setNeighbour(pod, link, gw, near); err != nil {
			return err
		}
		out := netlink.Route{
			Dst: ipNet(netip.PrefixFrom(unspecified(gw.AsSlice()), 0)), LinkIndex: link.Attrs().Index,
			Gw: gw.AsSlice(), Flags: unix.RTNH_F_ONLINK,
		}
		if err := pod.RouteReplace(&out); err != nil {
			return fmt.Errorf("add route %s in the pod: %w", out, err)
		}
	}
	return nil
}

// setNeighbour tells one end of a link that an address is at the other end, for ever: no packet waits for ARP.
func setNeighbour(s *space, l netlink.Link, addr netip.Addr, other netlink.Link) error {
	err := s.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: other.Attrs().HardwareAddr,
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s of %s: %w", addr, l.Attrs().Name, err)
	}
	return nil
}
