package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// addAddrs puts the addresses on lo of the namespace, where a packet to them ends on every node without crossing a
// link. Those that are there already are left as they are, and loopback ones need no adding. It returns what it added.
func addAddrs(ns netns.NS, addrs []netip.Addr) (added []netip.Addr, err error) {
	err = ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		for _, a := range addrs {
			if a.IsLoopback() {
				continue
			}
			switch err := netlink.AddrAdd(lo, hostAddr(a)); {
			case err == nil:
				added = append(added, a)
			case !errors.Is(err, unix.EEXIST):
				return fmt.Errorf("add the DNS address %s to lo: %w", a, err)
			}
		}
		return nil
	})
	return added, err
}

// removeAddrs takes the addresses off lo. One that is gone already is no error.
func removeAddrs(ns netns.NS, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	return ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo: %w", err)
		}
		for _, a := range addrs {
			if err := netlink.AddrDel(lo, hostAddr(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove the DNS address %s from lo: %w", a, err)
			}
		}
		return nil
	})
}

func hostAddr(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Flags: unix.IFA_F_NODAD * b2i(a.Is6()),
		Scope: unix.RT_SCOPE_HOST * b2i(a.Is4()),
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
