//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// makeNetns makes a namespace of the instance, or adopts it, and opens it. It is the instance's if the journal or
// the alias of its lo says so.
func (c *Config) makeNetns(name string, j *journal) (*space, error) {
	path := NetnsPath(c.Name, name)
	if isNetns(path) {
		s, err := c.openOwn(path, j)
		if err != nil || s != nil {
			return s, err
		}
		return nil, problem("remove network namespace %s or choose another --name: it is not of instance %s", filepath.Base(path), c.Name)
	}
	if err := j.addNetns(path); err != nil {
		return nil, err
	}
	if err := netns.Delete(path); err != nil { // a file without a namespace, of a crash
		return nil, err
	}
	if err := netns.Create(path); err != nil {
		return nil, err
	}
	s, err := openSpace(netns.At(path))
	if err != nil {
		return nil, err
	}
	if err := s.mark(c.Name); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// mark brings up lo, whose alias says whose namespace it is.
func (s *space) mark(instance string) error {
	lo, err := s.LinkByIndex(loopbackIndex)
	if err != nil {
		return fmt.Errorf("find lo in %s: %w", s.ns, err)
	}
	if lo.Attrs().Alias != owner(instance) {
		if err := s.LinkSetAlias(lo, owner(instance)); err != nil {
			return fmt.Errorf("mark lo in %s: %w", s.ns, err)
		}
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := s.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo in %s: %w", s.ns, err)
	}
	return nil
}

// openOwn opens a namespace and marks it; nil when it is not the instance's.
func (c *Config) openOwn(path string, j *journal) (*space, error) {
	s, err := openSpace(netns.At(path))
	if err != nil {
		return nil, err
	}
	lo, err := s.LinkByIndex(loopbackIndex)
	if err == nil && lo.Attrs().Alias != owner(c.Name) && !slices.Contains(j.Netns, path) {
		s.Close()
		return nil, nil
	}
	if err = errors.Join(err, j.addNetns(path)); err == nil {
		err = s.mark(c.Name)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// isNetns reports whether a namespace is mounted at path.
func isNetns(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// ownNetns lists the paths of the instance's namespaces, from the journal and by their marks.
func (c *Config) ownNetns(j *journal) ([]string, error) {
	paths := slices.Clone(j.Netns)
	found, err := filepath.Glob(NetnsPath(c.Name, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		if slices.Contains(paths, path) || !isNetns(path) {
			continue
		}
		s, err := c.openOwn(path, &journal{path: j.path})
		if errors.Is(err, fs.ErrNotExist) || s == nil && err == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Close()
		paths = append(paths, path)
	}
	return paths, nil
}

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
	err = errors.Join(lan.setLink(near, nil, c.mtu()), to.setLink(far, hardwareAddr(addr), c.mtu()))
	if err != nil {
		return nil, err
	}
	lan.settle(ctx, near)
	to.settle(ctx, far)
	return far, nil
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
