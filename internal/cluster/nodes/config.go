//go:build linux

// Package nodes makes the network of a one-machine cluster: the virtual nodes of an instance, the LAN that joins
// them, their way out, and the links of pods.
//
// Every node is a network namespace. They are joined by a bridge in a namespace of its own, and the host has one
// link into it. The kernel is the state: Up compares it with a Config and repairs what differs. Only what must be
// put back on the host is written down, in a journal, before it is changed.
//
// It runs no processes of pods, knows no Kubernetes objects and programs no Services.
package nodes

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"sync"

	"minato/internal/netns"
)

// Config is the wanted network of an instance. It is only read.
type Config struct {
	Name      string   // of the instance; together with the node names it names the namespaces
	StateDir  string   // folder of the journal; must exist for Up
	HostNetns netns.NS // the namespace that plays the host; zero is the process's own
	Nodes     []Node   // none has the same name or address as another
	Families  []Family // one per IP family, IPv4 first
	HostPorts []uint16 // TCP ports served on the host's address, kept open where the host has a firewall
	MTU       int      // of every link; 0 is 1500
	Log       *slog.Logger

	said *sync.Map // parameters that were logged as refused
}

// Family holds the ranges of one IP family.
type Family struct {
	NodeCIDR    netip.Prefix // the LAN. With a Host node: the host's own network, only read
	PodCIDR     netip.Prefix // the range of all pods
	ServiceCIDR netip.Prefix // the range of ClusterIPs
	HostAddr    netip.Addr   // the host's address on the LAN and the nodes' gateway; not used with a Host node
}

func (f Family) ipv6() bool { return f.NodeCIDR.Addr().Is6() }

// Node is one node. Its addresses and pod ranges are in the order of Config.Families.
type Node struct {
	Name     string
	Addrs    []netip.Addr
	PodCIDRs []netip.Prefix
	Host     bool // the node is the host's namespace itself; then it is the only node
	Unlinked bool // its link to the LAN is down, see Network.SetLinked
}

// DefaultMTU is used where Config.MTU is 0.
const DefaultMTU = 1500

// ErrRangeInUse classifies errors of Up about a range which the host already uses for something else.
var ErrRangeInUse = errors.New("range in use")

// ErrConfig classifies errors of Up about a Config that contradicts itself.
var ErrConfig = errors.New("invalid network configuration")

// maxName keeps the names of namespaces and the comments of rules within what file systems and nftables take. It is
// also the limit of Kubernetes for the label that carries a node's name.
const maxName = 63

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

func (c *Config) mtu() int {
	if c.MTU == 0 {
		return DefaultMTU
	}
	return c.MTU
}

func (c *Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// onHost reports whether the instance's node is the host itself.
func (c *Config) onHost() bool { return len(c.Nodes) == 1 && c.Nodes[0].Host }

// netns is the namespace of a node.
func (c *Config) netns(n Node) netns.NS {
	if n.Host {
		return c.HostNetns
	}
	return netns.At(NetnsPath(c.Name, n.Name))
}

// problem makes an error whose text is for the user and which is an ErrConfig.
func problem(format string, args ...any) error {
	return &configError{fmt.Sprintf(format, args...)}
}

type configError struct{ text string }

func (e *configError) Error() string        { return e.text }
func (e *configError) Is(target error) bool { return target == ErrConfig }

// Validate reports what is wrong with the Config itself, without looking at the host.
func (c *Config) Validate() error {
	switch {
	case len(c.Name) > maxName:
		return problem("choose an instance name of at most %d characters: %q has %d", maxName, c.Name, len(c.Name))
	case !nameForm.MatchString(c.Name):
		return problem("choose an instance name of lower-case letters, digits, '-' and '.': %q is none", c.Name)
	case len(c.Nodes) == 0:
		return problem("give at least one node")
	case len(c.Families) == 0:
		return problem("give the ranges of at least one IP family")
	}
	for i, f := range c.Families {
		if err := c.validateFamily(f); err != nil {
			return err
		}
		if i > 0 && f.ipv6() == c.Families[0].ipv6() {
			return problem("give the ranges of each IP family once: %s is of the same as %s", f.NodeCIDR, c.Families[0].NodeCIDR)
		}
	}
	return c.validateNodes()
}

func (c *Config) validateFamily(f Family) error {
	ranges := []struct {
		flag  string
		value netip.Prefix
	}{{"--node-cidr", f.NodeCIDR}, {"--pod-cidr", f.PodCIDR}, {"--service-cidr", f.ServiceCIDR}}
	for i, r := range ranges {
		if !r.value.IsValid() || r.value != r.value.Masked() {
			return problem("give %s as the first address of a range and its length: %s is none", r.flag, r.value)
		}
		if r.value.Addr().Is4() != f.NodeCIDR.Addr().Is4() {
			return problem("choose another range with %s: %s is not of the IP family of %s", r.flag, r.value, f.NodeCIDR)
		}
		for _, other := range ranges[:i] {
			if other.value.Overlaps(r.value) {
				return problem("choose another range with %s: %s overlaps %s of %s", r.flag, r.value, other.value, other.flag)
			}
		}
	}
	if !c.onHost() && (!f.NodeCIDR.Contains(f.HostAddr) || f.HostAddr == f.NodeCIDR.Addr()) {
		return problem("choose another range with --node-cidr: the host's address %s is not in %s", f.HostAddr, f.NodeCIDR)
	}
	return nil
}

func (c *Config) validateNodes() error {
	names := map[string]bool{lanName: true}
	addrs := map[netip.Addr]string{}
	for index, n := range c.Nodes {
		switch {
		case len(n.Name) > maxName:
			return problem("choose a node name of at most %d characters: %q has %d", maxName, n.Name, len(n.Name))
		case !nameForm.MatchString(n.Name):
			return problem("choose a node name of lower-case letters, digits, '-' and '.': %q is none", n.Name)
		case names[n.Name]:
			return problem("choose another node name: %q is taken", n.Name)
		case n.Host && len(c.Nodes) > 1:
			return problem("give no other node: node %s is the host itself", n.Name)
		case len(n.Addrs) != len(c.Families) || len(n.PodCIDRs) != len(c.Families):
			return problem("give node %s one address and one pod range of each IP family", n.Name)
		}
		names[n.Name] = true
		for i, f := range c.Families {
			addr, pods := n.Addrs[i], n.PodCIDRs[i]
			if owner, taken := addrs[addr]; taken || addr == f.HostAddr {
				return problem("choose another address for node %s: %s belongs to %s", n.Name, addr, orHost(owner))
			}
			addrs[addr] = "node " + n.Name
			if !n.Host && !f.NodeCIDR.Contains(addr) {
				return problem("choose an address in %s for node %s: %s is not in it", f.NodeCIDR, n.Name, addr)
			}
			if !f.PodCIDR.Contains(pods.Addr()) || pods.Bits() < f.PodCIDR.Bits() {
				return problem("choose a wider range with --pod-cidr: %s of node %s is not in %s", pods, n.Name, f.PodCIDR)
			}
			for _, other := range c.Nodes[:index] {
				if other.PodCIDRs[i].Overlaps(pods) {
					return problem("choose another pod range for node %s: %s overlaps %s of node %s", n.Name, pods, other.PodCIDRs[i], other.Name)
				}
			}
		}
	}
	return nil
}

func orHost(owner string) string {
	if owner == "" {
		return "the host"
	}
	return owner
}
