//go:build linux

package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/netip"
	"path"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// setHost changes what has to be on the host besides its link: routes, forwarding, its table and its firewall.
func (c *Config) setHost(host *space, j *journal) ([]Notice, error) {
	if err := host.setRoutes(c.hostRoutes(), c.isHostRoute); err != nil {
		return nil, err
	}
	before, err := c.forwardingBefore(j)
	if err != nil {
		return nil, err
	}
	if err := j.addSysctls(before); err != nil {
		return nil, err
	}
	if err := c.setHostTable(before); err != nil {
		return nil, err
	}
	if err := setSysctls(c.HostNetns, c.forwardingSysctls(before), c.refused); err != nil {
		return nil, err
	}
	return c.passFirewall()
}

// setHostLink makes the host's link into the LAN.
func (c *Config) setHostLink(ctx context.Context, lan, host *space) error {
	link, err := c.connect(ctx, lan, hostPort, host, HostLink(c.Name), c.Families[0].HostAddr)
	if err != nil {
		return err
	}
	var addrs []netip.Prefix
	for _, f := range c.Families {
		addrs = append(addrs, netip.PrefixFrom(f.HostAddr, f.NodeCIDR.Bits()))
	}
	if err := setSysctls(host.ns, c.linkSysctls6(link.Attrs().Name), c.refused); err != nil {
		return err
	}
	return host.setAddresses(link, addrs)
}

// unsetHost undoes setHost as far as it went.
func (c *Config) unsetHost(host *space, j *journal) error {
	return errors.Join(
		c.unpassFirewall(),
		c.restoreForwarding(j),
		deleteTables(c.HostNetns, TableName(c.Name)),
		host.setRoutes(nil, c.isHostRoute),
	)
}

// hostRoutes keep pod and service addresses from leaving by the default route.
func (c *Config) hostRoutes() (all []netlink.Route) {
	metric := c.metric()
	for i, f := range c.Families {
		all = append(all, route(f.PodCIDR, netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: metric}))
		if !c.onHost() {
			all = append(all, route(f.ServiceCIDR, netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: metric}))
			continue
		}
		// A node needs a route to connect at all, before its destination is translated. What is not translated
		// ends on lo, where packets that lo did not expect are dropped.
		all = append(all, route(f.ServiceCIDR, netlink.Route{
			LinkIndex: loopbackIndex, Src: c.Nodes[0].Addrs[i].AsSlice(), MTU: c.mtu(), Priority: metric,
		}))
	}
	return all
}

const loopbackIndex = 1 // lo is the first link of every namespace

// metric tells the routes of instances with equal ranges apart.
func (c *Config) metric() int { return 1_000_000 + int(crc32.ChecksumIEEE([]byte(c.Name))%1_000_000) }

func (c *Config) isHostRoute(r netlink.Route) bool { return r.Priority == c.metric() }

// Forwarding of the two families, by family.
const forwarding4, forwarding6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"

// forwardingSysctls are what makes the host forward for its nodes. A link that takes its routes from router
// advertisements goes on doing so: a host that forwards ignores them otherwise (accept_ra in the kernel's ip-sysctl).
func (c *Config) forwardingSysctls(before []sysctlChange) (all []sysctl) {
	for _, s := range before {
		if path.Base(s.Name) == "accept_ra" {
			all = append(all, sysctl{s.Name, s.Ours, false})
		}
	}
	for _, f := range c.Families {
		name := forwarding4
		if f.ipv6() {
			name = forwarding6
		}
		all = append(all, sysctl{name, "1", true})
	}
	return all
}

// forwardingBefore says what to put back: nothing where the host forwards anyway. Where an instance already runs,
// it is what that one found, which the comments of its tables carry.
func (c *Config) forwardingBefore(j *journal) ([]sysctlChange, error) {
	if len(j.Sysctls) > 0 {
		return j.Sysctls, nil
	}
	others, err := c.otherInstances()
	if err != nil {
		return nil, err
	}
	var all []sysctlChange
	for _, f := range c.Families {
		var before []sysctlChange
		for _, t := range others {
			if t.Family == nfnl.FamilyOf(f.NodeCIDR.Addr()) && len(before) == 0 {
				before = decodeBefore(t.Comment)
			}
		}
		if len(before) == 0 {
			err = errors.Join(err, c.HostNetns.Do(func() (err error) {
				before, err = observeForwarding(f.ipv6(), HostLink(c.Name))
				return err
			}))
		}
		all = append(all, before...)
	}
	return all, err
}

// otherInstances lists the tables of other instances on this host.
func (c *Config) otherInstances() (others []nfnl.Table, err error) {
	conn, err := nfnl.Open(c.HostNetns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for _, family := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		tables, err := conn.Tables(family)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			if strings.HasPrefix(t.Name, TableName("")) && t.Name != TableName(c.Name) && t.Name != EgressTable {
				others = append(others, t)
			}
		}
	}
	return others, nil
}

// observeForwarding reads, in the namespace of the calling thread, what setting a family's forwarding will change.
// Setting it back to 0 makes every link's forwarding 0, and with IPv4 all's accept_redirects 1 (inet_forward_change in
// net/ipv4/devinet.c, dev_forward_change in net/ipv6/addrconf.c), so what was otherwise is recorded too. The instance's own link goes with it.
func observeForwarding(ipv6 bool, own string) ([]sysctlChange, error) {
	forwarding, conf := forwarding4, "net/ipv4/conf/"
	if ipv6 {
		forwarding, conf = forwarding6, "net/ipv6/conf/"
	}
	now, err := readSysctl(forwarding)
	if err != nil || now == "1" {
		return nil, err
	}
	before := []sysctlChange{{forwarding, now, "1"}}
	record := func(link, name, otherThan, ours string) {
		if v, err := readSysctl(conf + link + "/" + name); err == nil && v != otherThan {
			before = append(before, sysctlChange{Name: conf + link + "/" + name, Before: v, Ours: ours})
		}
	}
	if !ipv6 {
		record("all", "accept_redirects", "1", "")
	}
	links, err := filepath.Glob("/proc/sys/" + conf + "*/forwarding")
	if err != nil {
		return nil, err
	}
	for _, file := range links {
		link := path.Base(path.Dir(file))
		if link == own {
			continue
		}
		if link != "all" || !ipv6 {
			record(link, "forwarding", "0", "")
		}
		if v, err := readSysctl(conf + link + "/accept_ra"); ipv6 && err == nil && v == "1" && link != "all" && link != "default" && link != "lo" {
			record(link, "accept_ra", "", "2")
		}
	}
	return before, nil
}

// restoreForwarding puts back what the journal has, unless another instance still needs it or somebody has changed
// it since.
func (c *Config) restoreForwarding(j *journal) error {
	if len(j.Sysctls) == 0 {
		return nil
	}
	others, err := c.otherInstances()
	if err != nil || len(others) > 0 {
		return err
	}
	changed := map[string]bool{} // by somebody else, by family
	return c.HostNetns.Do(func() error {
		for _, s := range j.Sysctls {
			now, err := readSysctl(s.Name)
			switch {
			case errors.Is(err, fs.ErrNotExist): // the link is gone
				continue
			case err != nil:
				return fmt.Errorf("read sysctl %s: %w", s.Name, err)
			case s.Ours != "" && now != s.Ours:
				if s.Name == forwarding4 || s.Name == forwarding6 { // what follows from it is not ours either
					changed[familyPath(s.Name)] = true
				}
				continue
			case changed[familyPath(s.Name)]:
				continue
			}
			if err := (sysctl{name: s.Name, value: s.Before}).set(); err != nil {
				return err
			}
		}
		return nil
	})
}

// familyPath is the part of a parameter's name that says its family: net/ipv4 or net/ipv6.
func familyPath(name string) string { return name[:min(len(name), len("net/ipv4"))] }

// maxComment is the most that the comment of a table holds (NFT_USERDATA_MAXLEN is 256).
const maxComment = 240

// encodeBefore is the text of changes for the comment of a table. Where they are too many, the first is the one
// that counts.
func encodeBefore(before []sysctlChange) string {
	b, err := json.Marshal(before)
	if err != nil || len(before) == 0 {
		return ""
	}
	if len(b) > maxComment {
		return encodeBefore(before[:1])
	}
	return string(b)
}

// decodeBefore is the reverse; a comment that is something else is none.
func decodeBefore(comment string) (before []sysctlChange) {
	if json.Unmarshal([]byte(comment), &before) != nil {
		return nil
	}
	return before
}
