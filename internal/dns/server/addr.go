package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// ours labels IPv4 addresses that a server added, so that the next one knows them after a crash. IPv6 has no labels.
const ours = "lo:minato-dns"

// addAddrs puts the addresses on lo of the namespace, where a packet to them ends on every node without crossing a
// link. Those that somebody else put there are left as they are, and loopback ones need no adding. It returns ours.
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
			err := netlink.AddrAdd(lo, hostAddr(a))
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("add the DNS address %s to lo: %w", a, err)
			}
			if err == nil || labelled(lo, a) {
				added = append(added, a)
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

// labelled reports whether an address that is there already carries our label.
func labelled(lo netlink.Link, a netip.Addr) bool {
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	return err == nil && slices.ContainsFunc(addrs, func(have netlink.Addr) bool {
		return have.Label == ours && have.IP.Equal(a.AsSlice())
	})
}

func hostAddr(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is4() {
		out.Label, out.Scope = ours, unix.RT_SCOPE_HOST
	} else {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}
