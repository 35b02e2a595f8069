//go:build linux

package nodes

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The routes of a node to its pods are the record of which addresses are taken: there is no other. An address is
// claimed by adding its route, which the kernel refuses if there is one.

// ErrNoAddress classifies an Attach for which the node's pod range has no address left.
var ErrNoAddress = errors.New("no pod address left")

// claim returns the address of family i that leads to a link, after giving it the next free one if it has none.
// The node's mutex is held.
func (n *node) claim(i int, l netlink.Link) (netip.Addr, error) {
	pods := n.PodCIDRs[i]
	taken, highest, err := n.taken(pods, l)
	if err != nil || taken.IsValid() {
		return taken, err
	}
	if !n.cursor[i].IsValid() {
		n.cursor[i] = highest
	}
	for addr := range candidates(pods, n.cursor[i]) {
		r := route(single(addr), netlink.Route{LinkIndex: l.Attrs().Index, Src: n.Addrs[i].AsSlice()})
		err := n.RouteAdd(&r)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return netip.Addr{}, fmt.Errorf("add route to pod %s: %w", addr, err)
		}
		n.cursor[i] = addr
		return addr, nil
	}
	return netip.Addr{}, fmt.Errorf("%w in %s", ErrNoAddress, pods)
}

// taken finds in the kernel the address that leads to a link and the highest one that leads to any.
func (n *node) taken(pods netip.Prefix, l netlink.Link) (taken, highest netip.Addr, err error) {
	routes, err := n.routes()
	if err != nil {
		return taken, highest, err
	}
	highest = pods.Masked().Addr()
	for _, r := range routes {
		addr := prefixOf(r.Dst).Addr()
		if !isPodRoute(r) || !pods.Contains(addr) {
			continue
		}
		if r.LinkIndex == l.Attrs().Index {
			taken = addr
		}
		if highest.Less(addr) {
			highest = addr
		}
	}
	return taken, highest, nil
}

// candidates goes round the addresses of a range once, beginning after one of them, so that an address which was
// just given back rests for as long as possible. The range's first and last address are left out, and so is every
// .0 and .255, which some software takes for a network's.
func candidates(pods netip.Prefix, after netip.Addr) func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		first := pods.Masked().Addr()
		for addr := after.Next(); ; addr = addr.Next() {
			if !addr.IsValid() || !pods.Contains(addr) {
				addr = first
			}
			if usable(pods, addr) && !yield(addr) || addr == after {
				return
			}
		}
	}
}

func usable(pods netip.Prefix, addr netip.Addr) bool {
	if b := addr.AsSlice(); addr.Is4() && (b[3] == 0 || b[3] == 255) {
		return false
	}
	return addr != pods.Masked().Addr() && pods.Contains(addr.Next())
}
