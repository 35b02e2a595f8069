//go:build linux

package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// routeProtocol marks routes as ours, in the host's namespace and in the nodes' (rtm_protocol; 4 to 255 are free
// for user space, and iproute2's rt_protos does not name this one).
const routeProtocol netlink.RouteProtocol = 77

// space is a namespace with a netlink socket in it.
type space struct {
	ns netns.NS
	*netlink.Handle
}

func openSpace(ns netns.NS) (*space, error) {
	s := &space{ns: ns}
	err := ns.Do(func() (err error) {
		s.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in %s: %w", ns, err)
	}
	return s, nil
}

// file opens the namespace itself, to say to the kernel which one is meant.
func (s *space) file() (*os.File, error) {
	path := s.ns.Path()
	if path == "" {
		path = "/proc/thread-self/ns/net" // not self: the first thread may be elsewhere just now
	}
	return os.Open(path)
}

// link finds a link by name; nil when there is none.
func (s *space) link(name string) (netlink.Link, error) {
	l, err := s.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s in %s: %w", name, s.ns, err)
	}
	return l, nil
}

// deleteLink deletes a link if it is there.
func (s *space) deleteLink(name string) error {
	l, err := s.link(name)
	if l == nil || err != nil {
		return err
	}
	if err := s.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s in %s: %w", name, s.ns, err)
	}
	return nil
}

// setLink gives a link the properties that every link of ours has, where they differ, and brings it up.
func (s *space) setLink(l netlink.Link, mac net.HardwareAddr, mtu int) error {
	have := l.Attrs()
	if mac != nil && !slices.Equal(have.HardwareAddr, mac) {
		if err := s.LinkSetHardwareAddr(l, mac); err != nil {
			return fmt.Errorf("set hardware address of %s in %s: %w", have.Name, s.ns, err)
		}
	}
	if have.MTU != mtu {
		if err := s.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU of %s in %s: %w", have.Name, s.ns, err)
		}
	}
	if have.Flags&net.FlagUp == 0 {
		if err := s.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up %s in %s: %w", have.Name, s.ns, err)
		}
	}
	return nil
}

// settle waits until a link that is up can send. The kernel activates one end of a pair in the background, up to a
// second later where both have the same index, and drops what is sent until then (net/core/link_watch.c); since 6.8
// the first look at the link does it. A link that does not come is left to itself: it may still.
func (s *space) settle(ctx context.Context, l netlink.Link) {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	for ctx.Err() == nil {
		now, err := s.LinkByIndex(l.Attrs().Index)
		if err != nil || now.Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// setAddresses makes the wanted addresses the only ones of their families on a link.
func (s *space) setAddresses(l netlink.Link, wanted []netip.Prefix) error {
	name := l.Attrs().Name
	have, err := s.addresses(l)
	if err != nil {
		return err
	}
	for _, p := range have {
		if slices.Contains(wanted, p) {
			continue
		}
		if err := s.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %s of %s in %s: %w", p, name, s.ns, err)
		}
	}
	if have, err = s.addresses(l); err != nil { // anew, because others may have gone with a primary one
		return err
	}
	for _, p := range wanted {
		if slices.Contains(have, p) {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else chooses addresses here, so nobody has to be asked first
		}
		if err := s.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s to %s in %s: %w", p, name, s.ns, err)
		}
	}
	return nil
}

func (s *space) addresses(l netlink.Link) (all []netip.Prefix, err error) {
	have, err := list(func() ([]netlink.Addr, error) { return s.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s in %s: %w", l.Attrs().Name, s.ns, err)
	}
	for _, a := range have {
		if p := prefixOf(a.IPNet); p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() { // those of IPv6 are the kernel's
			all = append(all, p)
		}
	}
	return all, nil
}

// setRoutes makes the wanted routes the only ones of ours among those that belong.
func (s *space) setRoutes(wanted []netlink.Route, belongs func(netlink.Route) bool) error {
	have, err := s.routes()
	if err != nil {
		return err
	}
	for _, r := range have {
		if !belongs(r) || slices.ContainsFunc(wanted, func(w netlink.Route) bool { return sameRoute(w, r) }) {
			continue
		}
		if err := s.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route %s in %s: %w", r, s.ns, err)
		}
	}
	for _, w := range wanted {
		if slices.ContainsFunc(have, func(r netlink.Route) bool { return sameRoute(w, r) }) {
			continue
		}
		if err := s.RouteReplace(&w); err != nil {
			return fmt.Errorf("add route %s in %s: %w", w, s.ns, err)
		}
	}
	return nil
}

// routes lists the routes of ours in the main table.
func (s *space) routes() ([]netlink.Route, error) {
	return s.routesBy(&netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
}

// routesBy lists the routes of both families that a filter lets through.
func (s *space) routesBy(filter *netlink.Route, mask uint64) (all []netlink.Route, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		some, err := list(func() ([]netlink.Route, error) { return s.RouteListFiltered(family, filter, mask) })
		if err != nil {
			return nil, fmt.Errorf("list routes in %s: %w", s.ns, err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// defaultMetric6 is what the kernel gives to routes of IPv6 without a metric (IP6_RT_PRIO_USER).
const defaultMetric6 = 1024

// route completes a route of ours to dst.
func route(dst netip.Prefix, r netlink.Route) netlink.Route {
	r.Dst, r.Protocol, r.Table = ipNet(dst), routeProtocol, unix.RT_TABLE_MAIN
	if r.Type == 0 {
		r.Type = unix.RTN_UNICAST
	}
	switch {
	case dst.Addr().Is6() && r.Priority == 0:
		r.Priority = defaultMetric6
	case dst.Addr().Is4() && r.LinkIndex != 0 && r.Gw == nil:
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

func sameRoute(a, b netlink.Route) bool {
	return prefixOf(a.Dst) == prefixOf(b.Dst) && a.Type == b.Type && a.Priority == b.Priority && a.Gw.Equal(b.Gw) &&
		a.Src.Equal(b.Src) && a.MTU == b.MTU && (a.LinkIndex == b.LinkIndex || a.Type != unix.RTN_UNICAST)
}

// list repeats a dump that a concurrent change has interrupted.
func list[T any](dump func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the prefix of an IPNet; the default route's nil is 0.0.0.0/0.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
