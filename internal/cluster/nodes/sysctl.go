//go:build linux

package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// sysctl is a kernel parameter below /proc/sys, with the value it shall have. The files are those of the namespace
// of the thread that opens them, so no mount is needed to reach another one.
type sysctl struct {
	name  string // as in net/ipv4/ip_forward; slashes, because names of links may have dots
	value string
	need  bool // the network does not work without it
}

func (s sysctl) path() string { return filepath.Join("/proc/sys", s.name) }

// readSysctl reads in the namespace of the calling thread.
func readSysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctl{name: name}.path())
	return strings.TrimSpace(string(b)), err
}

// set writes the value in the namespace of the calling thread, where it differs.
func (s sysctl) set() error {
	have, err := readSysctl(s.name)
	if err == nil && have == s.value {
		return nil
	}
	if err := os.WriteFile(s.path(), []byte(s.value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", s.name, s.value, err)
	}
	return nil
}

// setSysctls sets parameters in a namespace. One that is not needed may be read-only there, as some are outside
// the initial namespace, or missing; refused learns of it.
func setSysctls(ns netns.NS, all []sysctl, refused func(sysctl, error)) error {
	return ns.Do(func() error {
		for _, s := range all {
			err := s.set()
			switch {
			case err == nil:
			case s.need || !tolerable(err):
				return fmt.Errorf("in %s: %w", ns, err)
			default:
				refused(s, err)
			}
		}
		return nil
	})
}

// refused logs a parameter that stays as it is, once, not again for every node and pod.
func (c *Config) refused(s sysctl, err error) {
	if _, said := c.said.LoadOrStore(path.Base(s.name), true); !said {
		c.log().Warn("a kernel parameter stays as it is", "err", err)
	}
}

func tolerable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS)
}

// nodeSysctls are the parameters of a node's namespace. A new namespace inherits some of them from the host, so
// each that matters is set.
func (c *Config) nodeSysctls() []sysctl {
	all := []sysctl{
		{"net/ipv4/ip_forward", "1", true},
		{"net/ipv4/conf/all/rp_filter", "0", true}, // the greater of all's and the link's holds
		{"net/ipv4/conf/default/rp_filter", "0", true},
		{"net/ipv4/conf/" + uplink + "/rp_filter", "2", true},   // loose: replies may take another way
		{"net/ipv4/conf/" + uplink + "/arp_ignore", "1", false}, // addresses on lo are not the LAN's business
		{"net/ipv4/conf/" + uplink + "/arp_announce", "2", false},
		{"net/ipv4/conf/all/accept_local", "0", false},
		{"net/ipv4/conf/all/route_localnet", "0", false},
		{"net/ipv4/conf/all/accept_source_route", "0", false},
	}
	for _, scope := range []string{"all", "default", uplink} {
		all = append(all,
			sysctl{"net/ipv4/conf/" + scope + "/send_redirects", "0", false},
			sysctl{"net/ipv4/conf/" + scope + "/accept_redirects", "0", false})
	}
	return append(all, c.sysctls6(uplink, sysctl{"net/ipv6/conf/all/forwarding", "1", true})...)
}

// sysctls6 are those of IPv6 in a namespace of the instance's, whose only link outside is named; nothing where the
// instance has no IPv6. Addresses and routes are given, never learned.
func (c *Config) sysctls6(link string, more ...sysctl) (all []sysctl) {
	for _, scope := range []string{"all", "default", "lo", link} {
		all = append(all, c.linkSysctls6(scope)...)
	}
	if len(all) > 0 {
		all = append(all, more...)
	}
	return all
}

// linkSysctls6 are those of one link.
func (c *Config) linkSysctls6(link string) (all []sysctl) {
	if !slices.ContainsFunc(c.Families, Family.ipv6) {
		return nil
	}
	all = append(all, sysctl{"net/ipv6/conf/" + link + "/disable_ipv6", "0", true})
	for _, name := range []string{"accept_ra", "accept_redirects", "autoconf", "accept_dad"} {
		all = append(all, sysctl{"net/ipv6/conf/" + link + "/" + name, "0", false})
	}
	return all
}

// podSysctls are those of a pod's namespace; the runtime may set others.
func (c *Config) podSysctls(link string) []sysctl { return c.sysctls6(link) }

// conntrackSysctls are kube-proxy's defaults (KubeProxyConntrackConfiguration). nf_conntrack_max is left alone: it
// belongs to the whole machine.
func conntrackSysctls() []sysctl {
	return []sysctl{
		{"net/netfilter/nf_conntrack_tcp_timeout_established", "86400", false},
		{"net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600", false},
	}
}

// lanSysctls keep the frames of the bridge away from the rules of its namespace, and the bridge itself silent.
func lanSysctls() []sysctl {
	return []sysctl{
		{"net/ipv6/conf/all/disable_ipv6", "1", false},
		{"net/ipv6/conf/default/disable_ipv6", "1", false},
		{"net/bridge/bridge-nf-call-iptables", "0", false},
		{"net/bridge/bridge-nf-call-ip6tables", "0", false},
		{"net/bridge/bridge-nf-call-arptables", "0", false},
	}
}

// podLinkSysctls make the node's end of a pod's link answer for the pod's gateway at once, and take nothing from
// it but the pod's own address.
func podLinkSysctls(link string) []sysctl {
	return []sysctl{
		{"net/ipv4/conf/" + link + "/proxy_arp", "1", true},
		{"net/ipv4/neigh/" + link + "/proxy_delay", "0", false},
		{"net/ipv4/conf/" + link + "/rp_filter", "1", true},
		{"net/ipv4/conf/" + link + "/send_redirects", "0", false},
	}
}
