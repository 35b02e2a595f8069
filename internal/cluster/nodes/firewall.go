//go:build linux

package nodes

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"minato/internal/nfnl"
)

// A host's firewall that drops forwarded packets (Docker sets iptables' policy of FORWARD to DROP, so does ufw)
// cannot be overruled from a table of our own: a packet has to be accepted by every base chain. So rules that
// accept go to the head of iptables' own chains, with a comment by which they are found again.

// passage is traffic that a firewall of the host shall let through. Empty fields match everything.
type passage struct {
	in, out  string
	src, dst netip.Prefix
	tcpPort  uint16
	answers  bool // only packets of connections that are under way
}

func (p passage) exprs() exprs {
	var x exprs
	if p.in != "" {
		x = append(x, throughLink(nfnl.MetaIIFName, nfnl.Equal, p.in)...)
	}
	if p.out != "" {
		x = append(x, throughLink(nfnl.MetaOIFName, nfnl.Equal, p.out)...)
	}
	if p.src.IsValid() {
		x = append(x, within(source(p.src.Addr()), nfnl.Equal, p.src)...)
	}
	if p.dst.IsValid() {
		x = append(x, within(destination(p.dst.Addr()), nfnl.Equal, p.dst)...)
	}
	if p.tcpPort != 0 {
		x = append(x, toTCPPort(p.tcpPort)...)
	}
	if p.answers {
		x = append(x, answers()...)
	}
	return append(x, accept()...)
}

// forwarded is what the host has to forward for the cluster: what its nodes start. With a Host node also what is
// meant for its pods, since Services lead there.
func (c *Config) forwarded(f Family) []passage {
	if c.onHost() {
		return []passage{{src: f.PodCIDR}, {dst: f.PodCIDR}}
	}
	link := HostLink(c.Name)
	return []passage{{in: link}, {out: link, answers: true}}
}

// received is what the host itself has to answer.
func (c *Config) received(f Family) (all []passage) {
	for _, port := range c.HostPorts {
		p := passage{in: HostLink(c.Name), dst: netip.PrefixFrom(f.HostAddr, f.HostAddr.BitLen()), tcpPort: port}
		if c.onHost() {
			p = passage{src: f.PodCIDR, tcpPort: port}
		}
		all = append(all, p)
	}
	return all
}

// iptables' table and its chains, as iptables-nft makes them. DOCKER-USER is where Docker wants others' rules.
const (
	filterTable  = "filter"
	forwardChain = "FORWARD"
	dockerChain  = "DOCKER-USER"
	inputChain   = "INPUT"
)

// passFirewall puts the rules that accept where iptables has a chain, and returns a notice for what is beyond it.
func (c *Config) passFirewall() ([]Notice, error) {
	conn, err := nfnl.Open(c.HostNetns)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b := nfnl.NewBatch()
	for _, f := range c.Families {
		family := familyOf(f.PodCIDR)
		chains, err := conn.Chains(family, filterTable)
		if err != nil {
			return nil, err
		}
		has := func(name string) bool {
			return slices.ContainsFunc(chains, func(ch nfnl.Chain) bool { return ch.Name == name })
		}
		forward := forwardChain
		if has(dockerChain) {
			forward = dockerChain
		}
		for chain, wanted := range map[string][]passage{forward: c.forwarded(f), inputChain: c.received(f)} {
			if !has(chain) {
				continue
			}
			if err := c.pass(conn, b, nfnl.Rule{Family: family, Table: filterTable, Chain: chain, Comment: owner(c.Name)}, wanted); err != nil {
				return nil, err
			}
		}
	}
	if err := conn.Commit(b); err != nil {
		return nil, fmt.Errorf("let the nodes through the host's firewall: %w", err)
	}
	return c.firewallNotices(conn)
}

// pass replaces our rules in a chain by the wanted ones, at its head.
func (c *Config) pass(conn *nfnl.Conn, b *nfnl.Batch, ours nfnl.Rule, wanted []passage) error {
	have, err := conn.Rules(ours.Family, ours.Table, ours.Chain)
	if err != nil {
		return err
	}
	for _, r := range have {
		if r.Comment == ours.Comment {
			b.DeleteRule(r)
		}
	}
	for _, p := range slices.Backward(wanted) {
		ours.Exprs = p.exprs()
		b.InsertRule(ours)
	}
	return nil
}

// unpassFirewall deletes our rules from iptables' chains, wherever they have got to.
func (c *Config) unpassFirewall() error {
	conn, err := nfnl.Open(c.HostNetns)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := nfnl.NewBatch()
	for _, family := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		rules, err := conn.Rules(family, filterTable, "")
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Comment == owner(c.Name) {
				b.DeleteRule(r)
			}
		}
	}
	return conn.Commit(b)
}

// firewallNotices names the firewalls whose rules are not ours to change, with what to tell them.
func (c *Config) firewallNotices(conn *nfnl.Conn) (notices []Notice, err error) {
	link := HostLink(c.Name)
	for _, family := range []nfnl.Family{nfnl.IPv4, nfnl.Inet} {
		tables, err := conn.Tables(family)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			chain, err := forwardFilter(conn, t)
			switch {
			case err != nil:
				return nil, err
			case chain == "" || foreignToUs(t):
			case t.Name == "firewalld":
				notices = append(notices, Notice{"firewalld rejects what the nodes send to the outside.",
					"firewall-cmd --zone=trusted --add-interface=" + link})
			default:
				notices = append(notices, Notice{
					fmt.Sprintf("If the nftables chain %q of table %s %s drops, the nodes do not reach the outside.", chain, t.Family, t.Name),
					fmt.Sprintf("nft insert rule %s %s %s iifname %s accept; nft insert rule %s %s %s oifname %s ct state established,related accept",
						t.Family, t.Name, chain, link, t.Family, t.Name, chain, link)})
			}
		}
	}
	return append(notices, c.legacyNotice()...), nil
}

// foreignToUs reports tables whose forward chain is taken care of, or only looks at its owner's own traffic.
func foreignToUs(t nfnl.Table) bool {
	return t.Family == nfnl.IPv4 && t.Name == filterTable || strings.HasPrefix(t.Name, "minato") ||
		strings.HasPrefix(t.Name, "docker-") || strings.HasPrefix(t.Name, "kube-")
}

// forwardFilter is the name of a table's base chain that can drop forwarded packets.
func forwardFilter(conn *nfnl.Conn, t nfnl.Table) (string, error) {
	chains, err := conn.Chains(t.Family, t.Name)
	for _, ch := range chains {
		if ch.Type == "filter" && ch.Hook == nfnl.Forward {
			return ch.Name, err
		}
	}
	return "", err
}

// legacyNotice covers iptables with its old kernel interface, whose rules netlink does not show.
func (c *Config) legacyNotice() []Notice {
	var tables []byte
	err := c.HostNetns.Do(func() (err error) {
		tables, err = os.ReadFile("/proc/thread-self/net/ip_tables_names")
		return err
	})
	if err != nil || !slices.Contains(strings.Fields(string(tables)), filterTable) {
		return nil
	}
	link := HostLink(c.Name)
	return []Notice{{"If the FORWARD chain of iptables-legacy drops, the nodes do not reach the outside.",
		"iptables-legacy -I FORWARD -i " + link + " -j ACCEPT; iptables-legacy -I FORWARD -o " + link +
			" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}}
}
