//go:build linux

package nodes

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RangeError names a range, who uses it, and the flag that chooses another one.
type RangeError struct {
	Wanted netip.Prefix
	User   string
	Flag   string // with its dashes
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("choose another range with %s: %s is in use by %s", e.Flag, e.Wanted, e.User)
}

// Is classifies the error as ErrRangeInUse.
func (e *RangeError) Is(target error) bool { return target == ErrRangeInUse }

// use is a part of an IP family's addresses which the host uses for something else than the instance.
type use struct {
	prefix netip.Prefix
	user   string
}

// checkRanges refuses ranges that the host already uses. Ranges that the host only knows to be unreachable are
// free: so two instances can have the same pods and services.
func (c *Config) checkRanges(host *space) error {
	uses, err := c.uses(host)
	if err != nil {
		return err
	}
	for i, f := range c.Families {
		if c.onHost() {
			if addr := c.Nodes[0].Addrs[i]; !hasAddress(uses, addr) {
				return problem("choose an address of this machine for node %s: it does not have %s", c.Nodes[0].Name, addr)
			}
		} else if err := inUse(uses, f.NodeCIDR, "--node-cidr"); err != nil {
			return err
		}
		if err := inUse(uses, f.PodCIDR, "--pod-cidr"); err != nil {
			return err
		}
		if err := inUse(uses, f.ServiceCIDR, "--service-cidr"); err != nil {
			return err
		}
	}
	return nil
}

func inUse(uses []use, wanted netip.Prefix, flag string) error {
	for _, u := range uses {
		if u.prefix.Overlaps(wanted) {
			return &RangeError{wanted, u.user, flag}
		}
	}
	return nil
}

func hasAddress(uses []use, a netip.Addr) bool {
	for _, u := range uses {
		if u.prefix.Addr() == a {
			return true
		}
	}
	return false
}

// uses lists addresses and routes of the host that are not the instance's, in all tables but for default routes.
func (c *Config) uses(host *space) (all []use, err error) {
	links, err := list(host.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links of the host: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		if l.Attrs().Alias == owner(c.Name) {
			continue
		}
		names[l.Attrs().Index] = l.Attrs().Name
		addrs, err := host.addresses(l)
		if err != nil {
			return nil, err
		}
		for _, p := range addrs {
			all = append(all, use{p, fmt.Sprintf("link %s (%s)", l.Attrs().Name, p)})
		}
	}
	routes, err := host.routesBy(&netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		name, theirs := names[r.LinkIndex]
		ours := r.LinkIndex != 0 && !theirs || r.Protocol == routeProtocol
		if dst := prefixOf(r.Dst); r.Type == unix.RTN_UNICAST && dst.Bits() > 0 && !ours {
			all = append(all, use{dst, describeRoute(dst, r, name)})
		}
	}
	return all, nil
}

func describeRoute(dst netip.Prefix, r netlink.Route, link string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "the route to %s", dst)
	if r.Gw != nil {
		fmt.Fprintf(&s, " via %s", r.Gw)
	}
	if link != "" {
		fmt.Fprintf(&s, " on link %s", link)
	}
	return s.String()
}
