//go:build linux

package nodes

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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

// nft is the passage in the grammar of nft, for the user's own tables.
func (p passage) nft() string {
	ip := "ip "
	if p.src.Addr().Is6() || p.dst.Addr().Is6() {
		ip = "ip6 "
	}
	return p.words("iifname ", "oifname ", ip+"saddr ", ip+"daddr ", "ct state established,related", "accept")
}

// iptables is the passage as arguments of iptables.
func (p passage) iptables() string {
	return p.words("-i ", "-o ", "-s ", "-d ", "-m conntrack --ctstate RELATED,ESTABLISHED", "-j ACCEPT")
}

// words says the passage in somebody's words.
func (p passage) words(in, out, src, dst, answers, accept string) string {
	var parts []string
	for _, w := range []struct {
		on         bool
		word, what string
	}{
		{p.in != "", in, p.in}, {p.out != "", out, p.out},
		{p.src.IsValid(), src, p.src.String()}, {p.dst.IsValid(), dst, p.dst.String()},
		{p.answers, answers, ""}, {true, accept, ""},
	} {
		if w.on {
			parts = append(parts, w.word+w.what)
		}
	}
	return strings.Join(parts, " ")
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
		family := nfnl.FamilyOf(f.PodCIDR.Addr())
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
	notices, err := c.firewallNotices(conn)
	return append(notices, c.legacyNotices()...), err
}

// pass replaces our rules in a chain by the wanted ones, at its head.
func (c *Config) pass(conn *nfnl.Conn, b *nfnl.Batch, ours nfnl.Rule, wanted []passage) error {
	have, err := conn.Rules(ours.Family, ours.Table, ours.Chain)
	if err != nil {
		return err
	}
	for _, r := range have {
		if commentOf(r) == ours.Comment {
			b.DeleteRule(r)
		}
	}
	for _, p := range slices.Backward(wanted) {
		ours.Exprs = p.exprs()
		b.InsertRule(ours)
	}
	return nil
}

// commentOf is a rule's comment: ours as we wrote it, or as iptables-restore has written it since, which is as a
// match with the text for its data (struct xt_comment_info).
func commentOf(r nfnl.Rule) string {
	for _, e := range r.Exprs {
		if e.Name == "match" && text(nfnl.Attr(e.Data, unix.NFTA_MATCH_NAME)) == "comment" {
			return text(nfnl.Attr(e.Data, unix.NFTA_MATCH_INFO))
		}
	}
	return r.Comment
}

func text(zeroTerminated []byte) string {
	before, _, _ := bytes.Cut(zeroTerminated, []byte{0})
	return string(before)
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
			if commentOf(r) == owner(c.Name) {
				b.DeleteRule(r)
			}
		}
	}
	return conn.Commit(b)
}
