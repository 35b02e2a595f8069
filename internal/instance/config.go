package instance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Defaults of design: three nodes on a network of their own. The ranges are those of Family.
const (
	DefaultNodes         = 3
	DefaultClusterDomain = "cluster.local"
	DefaultAPIPort       = 6443
)

// Complete fills what is missing and checks what is there. numNodes counts only when no node is named.
func (c Config) Complete(numNodes int) (Config, error) {
	if c.ClusterDomain == "" {
		c.ClusterDomain = DefaultClusterDomain
	}
	c.ClusterDomain = strings.Trim(c.ClusterDomain, ".")
	if c.APIPort == 0 {
		c.APIPort = DefaultAPIPort
	}
	if len(c.Families) == 0 {
		c.Families = []Family{{}}
	}
	c.Families = collect(c, Family.complete)
	if len(c.Nodes) == 0 {
		for i := range numNodes {
			c.Nodes = append(c.Nodes, Node{Name: fmt.Sprintf("node%d", i+1)})
		}
	}
	if err := c.checkRanges(); err != nil {
		return c, err
	}
	if err := c.address(); err != nil {
		return c, err
	}
	return c, c.checkNodes()
}

// address gives every node one address of each family, in the order of the families.
func (c *Config) address() error {
	given := make([][]netip.Addr, len(c.Nodes))
	for i := range c.Nodes {
		given[i], c.Nodes[i].Addrs = c.Nodes[i].Addrs, nil
	}
	for _, f := range c.Families {
		var used []netip.Addr
		for _, addrs := range given {
			used = append(used, addrs...)
		}
		free := f.firstNode()
		for i := range c.Nodes {
			own := slices.IndexFunc(given[i], func(a netip.Addr) bool { return a.Is6() == f.IPv6 })
			if own >= 0 {
				c.Nodes[i].Addrs = append(c.Nodes[i].Addrs, given[i][own])
				given[i] = slices.Delete(slices.Clone(given[i]), own, own+1)
				continue
			}
			for slices.Contains(used, free) {
				free = free.Next()
			}
			used = append(used, free)
			c.Nodes[i].Addrs = append(c.Nodes[i].Addrs, free)
		}
	}
	for i, n := range c.Nodes {
		if len(given[i]) > 0 {
			return fmt.Errorf("give node %s one address of each IP family of the instance (--ip-family): %s is none", n.Name, given[i][0])
		}
	}
	return nil
}

func (c Config) checkRanges() error {
	if len(c.Nodes) == 0 {
		return fmt.Errorf("give at least one node (--nodes 1)")
	}
	for _, f := range c.Families {
		if err := f.check(len(c.Nodes)); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) checkNodes() error {
	names, addrs := map[string]bool{}, map[netip.Addr]string{}
	for _, a := range c.HostAddrs() {
		addrs[a] = "the host"
	}
	for _, n := range c.Nodes {
		if !validNodeName(n.Name) {
			return fmt.Errorf("name nodes with lower-case letters, digits, dashes and dots: %q is no node name", n.Name)
		}
		if names[n.Name] {
			return fmt.Errorf("name each node once: %s is there twice", n.Name)
		}
		names[n.Name] = true
		for i, a := range n.Addrs {
			if network := c.Families[i].NodeCIDR; !network.Contains(a) {
				return fmt.Errorf("give node %s an address inside --node-cidr %s: %s is outside", n.Name, network, a)
			}
			if user, used := addrs[a]; used {
				return fmt.Errorf("give node %s another address: %s belongs to %s", n.Name, a, user)
			}
			addrs[a] = "node " + n.Name
		}
	}
	return nil
}

func validNodeName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if !validName.MatchString(label) {
			return false
		}
	}
	return s != "lan" // the bridge's namespace has this name
}

// Changed names the first setting of want that cannot be changed while the instance has state, empty when all can
// be taken over. Upstream DNS and the kubeconfig's place can be changed at every start.
func (c Config) Changed(want Config) string {
	ipv6 := func(f Family) bool { return f.IPv6 }
	switch {
	case !slices.Equal(collect(c, ipv6), collect(want, ipv6)):
		return "--ip-family"
	case !slices.EqualFunc(c.Nodes, want.Nodes, func(a, b Node) bool { return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs) }):
		return "--nodes/--node"
	case c.Host != want.Host:
		return "--host"
	case !slices.Equal(c.NodeCIDRs(), want.NodeCIDRs()):
		return "--node-cidr"
	case !slices.Equal(c.PodCIDRs(), want.PodCIDRs()):
		return "--pod-cidr"
	case !slices.Equal(c.ServiceCIDRs(), want.ServiceCIDRs()):
		return "--service-cidr"
	case c.ClusterDomain != want.ClusterDomain:
		return "--cluster-domain"
	}
	return ""
}
