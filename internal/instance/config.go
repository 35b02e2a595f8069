package instance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Defaults of design: three nodes on a network of their own.
const (
	DefaultNodes         = 3
	DefaultNodeCIDR      = "172.30.0.0/24"
	DefaultPodCIDR       = "10.244.0.0/16"
	DefaultServiceCIDR   = "10.96.0.0/12"
	DefaultClusterDomain = "cluster.local"
	DefaultAPIPort       = 6443
)

const (
	firstNodeOffset = 11 // node1 is .11 of the node network; .1 is the host
	podCIDRBits     = 24
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
	for _, p := range []struct {
		prefix *netip.Prefix
		text   string
	}{{&c.NodeCIDR, DefaultNodeCIDR}, {&c.PodCIDR, DefaultPodCIDR}, {&c.ServiceCIDR, DefaultServiceCIDR}} {
		if !p.prefix.IsValid() {
			*p.prefix = netip.MustParsePrefix(p.text)
		}
		*p.prefix = p.prefix.Masked()
	}
	if len(c.Nodes) == 0 {
		for i := range numNodes {
			c.Nodes = append(c.Nodes, Node{Name: fmt.Sprintf("node%d", i+1)})
		}
	}
	free := offset(c.NodeCIDR.Addr(), firstNodeOffset)
	for i := range c.Nodes {
		if !c.Nodes[i].Addr.IsValid() {
			for slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.Addr == free }) {
				free = free.Next()
			}
			c.Nodes[i].Addr = free
		}
	}
	return c, c.check()
}

func (c Config) check() error {
	if len(c.Nodes) == 0 {
		return fmt.Errorf("give at least one node (--nodes 1)")
	}
	for _, p := range []struct {
		flag   string
		prefix netip.Prefix
		max    int
	}{{"--node-cidr", c.NodeCIDR, 28}, {"--pod-cidr", c.PodCIDR, podCIDRBits}, {"--service-cidr", c.ServiceCIDR, 27}} {
		if !p.prefix.Addr().Is4() || p.prefix.Bits() > p.max {
			return fmt.Errorf("give %s an IPv4 range of /%d or larger: %s is none", p.flag, p.max, p.prefix)
		}
	}
	if err := c.checkOverlap(); err != nil {
		return err
	}
	if room := 1 << (podCIDRBits - c.PodCIDR.Bits()); len(c.Nodes) >= room && c.PodCIDR.Bits() < podCIDRBits || len(c.Nodes) > room {
		return fmt.Errorf("give --pod-cidr a larger range: %s has no /24 for each of %d nodes", c.PodCIDR, len(c.Nodes))
	}
	return c.checkNodes()
}

func (c Config) checkOverlap() error {
	ranges := []struct {
		flag   string
		prefix netip.Prefix
	}{{"--node-cidr", c.NodeCIDR}, {"--pod-cidr", c.PodCIDR}, {"--service-cidr", c.ServiceCIDR}}
	for i, a := range ranges {
		for _, b := range ranges[:i] {
			if a.prefix.Overlaps(b.prefix) {
				return fmt.Errorf("choose ranges apart from each other: %s %s overlaps %s %s", b.flag, b.prefix, a.flag, a.prefix)
			}
		}
	}
	return nil
}

func (c Config) checkNodes() error {
	names, addrs := map[string]bool{}, map[netip.Addr]string{c.HostAddr(): "the host"}
	for _, n := range c.Nodes {
		if !validNodeName(n.Name) {
			return fmt.Errorf("name nodes with lower-case letters, digits, dashes and dots: %q is no node name", n.Name)
		}
		if names[n.Name] {
			return fmt.Errorf("name each node once: %s is there twice", n.Name)
		}
		names[n.Name] = true
		if !c.NodeCIDR.Contains(n.Addr) {
			return fmt.Errorf("give node %s an address inside --node-cidr %s: %s is outside", n.Name, c.NodeCIDR, n.Addr)
		}
		if user, used := addrs[n.Addr]; used {
			return fmt.Errorf("give node %s another address: %s belongs to %s", n.Name, n.Addr, user)
		}
		addrs[n.Addr] = "node " + n.Name
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

// HostAddr is the host's address on the node network: its first.
func (c Config) HostAddr() netip.Addr { return c.NodeCIDR.Addr().Next() }

// NodePodCIDR is the range of the i-th node's pods, counted from 0.
func (c Config) NodePodCIDR(i int) netip.Prefix {
	if c.PodCIDR.Bits() == podCIDRBits {
		return c.PodCIDR
	}
	return netip.PrefixFrom(offset(c.PodCIDR.Addr(), (i+1)<<(32-podCIDRBits)), podCIDRBits)
}

// DNSAddr is the address of Service kube-system/kube-dns: the tenth of the service range.
func (c Config) DNSAddr() netip.Addr { return offset(c.ServiceCIDR.Addr(), 10) }

// APIServiceAddr is the address of Service default/kubernetes: the first of the service range.
func (c Config) APIServiceAddr() netip.Addr { return offset(c.ServiceCIDR.Addr(), 1) }

func offset(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// Changed names the first setting of want that cannot be changed while the instance has state, empty when all can
// be taken over. Upstream DNS and the kubeconfig's place can be changed at every start.
func (c Config) Changed(want Config) string {
	switch {
	case !slices.Equal(c.Nodes, want.Nodes):
		return "--nodes/--node"
	case c.Host != want.Host:
		return "--host"
	case c.NodeCIDR != want.NodeCIDR:
		return "--node-cidr"
	case c.PodCIDR != want.PodCIDR:
		return "--pod-cidr"
	case c.ServiceCIDR != want.ServiceCIDR:
		return "--service-cidr"
	case c.ClusterDomain != want.ClusterDomain:
		return "--cluster-domain"
	}
	return ""
}
