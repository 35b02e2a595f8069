//go:build linux

package nodes

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"minato/internal/nfnl"
)

// firewallNotices names the firewalls whose rules are not ours to change, with what to tell them.
func (c *Config) firewallNotices(conn *nfnl.Conn) (notices []Notice, err error) {
	for _, family := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6, nfnl.Inet} {
		tables, err := conn.Tables(family)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			if knownTable(t) || !c.has(t.Family) {
				continue
			}
			chain, err := forwardFilter(conn, t)
			if err != nil {
				return nil, err
			}
			if chain != "" {
				notices = append(notices, c.tableNotice(t, chain))
			}
		}
	}
	return notices, nil
}

// has reports whether the nodes' packets can be of a family of nftables.
func (c *Config) has(family nfnl.Family) bool {
	return family == nfnl.Inet || slices.ContainsFunc(c.Families, func(f Family) bool { return nfnl.FamilyOf(f.NodeCIDR.Addr()) == family })
}

// tableNotice is about a table whose owner alone knows whether it drops.
func (c *Config) tableNotice(t nfnl.Table, chain string) Notice {
	f := c.Families[0]
	if t.Name == "firewalld" {
		add := "--add-interface=" + HostLink(c.Name)
		if c.onHost() {
			add = "--add-source=" + f.PodCIDR.String()
		}
		return Notice{"firewalld rejects what the nodes forward.", "firewall-cmd --zone=trusted " + add}
	}
	var commands []string
	for _, p := range c.forwarded(f) {
		commands = append(commands, fmt.Sprintf("nft insert rule %s %s %s %s", t.Family, t.Name, chain, p.nft()))
	}
	return Notice{
		fmt.Sprintf("If the chain %s of the nftables table %s %s drops, the nodes do not reach the outside.", chain, t.Family, t.Name),
		strings.Join(commands, "; "),
	}
}

// knownTable reports tables whose forward chain is taken care of, or looks at its owner's own traffic only.
func knownTable(t nfnl.Table) bool {
	return t.Family != nfnl.Inet && t.Name == filterTable || strings.HasPrefix(t.Name, "minato") ||
		strings.HasPrefix(t.Name, "docker-") || strings.HasPrefix(t.Name, "kube-")
}

// forwardFilter is the name of a table's base chain that can drop forwarded packets, empty if there is none.
func forwardFilter(conn *nfnl.Conn, t nfnl.Table) (string, error) {
	chains, err := conn.Chains(t.Family, t.Name)
	if err != nil {
		return "", err
	}
	for _, ch := range chains {
		if ch.Type == "filter" && ch.Hook == nfnl.Forward {
			return ch.Name, nil
		}
	}
	return "", nil
}

// legacyNotices cover iptables with its old kernel interface, whose rules netlink neither shows nor changes.
func (c *Config) legacyNotices() []Notice {
	var tables []byte
	err := c.HostNetns.Do(func() (err error) {
		tables, err = os.ReadFile("/proc/thread-self/net/ip_tables_names")
		return err
	})
	if err != nil || !slices.Contains(strings.Fields(string(tables)), filterTable) { // without the interface there is no file
		return nil
	}
	var commands []string
	for _, p := range c.forwarded(c.Families[0]) {
		commands = append(commands, "iptables-legacy -I FORWARD "+p.iptables())
	}
	return []Notice{{"If the FORWARD chain of iptables-legacy drops, the nodes do not reach the outside.", strings.Join(commands, "; ")}}
}
