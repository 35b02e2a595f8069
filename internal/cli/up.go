package cli

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"minato/internal/instance"
)

// upFlags are the flags of `minato up` as written.
type upFlags struct {
	nodes                          int
	node                           []string
	detach, replace                bool
	ipFamily                       string
	nodeCIDR, podCIDR, serviceCIDR []string
	domain, kubeconfig, logLevel   string
	apiPort                        uint16
	upstreamDNS, nodePortAddresses []string
	refuseExternalIPs              bool
}

func upCommand(o *options) *cobra.Command {
	f := &upFlags{}
	c := upCommandFlags(f)
	c.RunE = func(c *cobra.Command, _ []string) error {
		inst, err := o.instance()
		if err != nil {
			return err
		}
		if err := needRoot("up" + o.nameFlag()); err != nil {
			return err
		}
		cfg, err := f.config(c, inst)
		if err != nil {
			return err
		}
		if _, detached := os.LookupEnv(progressFD); !detached { // whose parent has looked, a moment ago
			if err := checkMachine(c.Context(), inst, cfg); err != nil {
				return err
			}
		}
		if f.detach {
			return detach(c.Context(), inst, os.Args[1:], c.ErrOrStderr())
		}
		return foreground(c.Context(), inst, cfg, f, c.ErrOrStderr())
	}
	return c
}

// upCommandFlags is the verb as it is written on a command line.
func upCommandFlags(f *upFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster on this machine",
		Long: "Starts an embedded Kubernetes API, virtual nodes and a private containerd, and the Service layer on every node.\n" +
			"A second start takes up the state and the running containers of the first. Ctrl-C ends it as `minato down` does.",
		Example: "  sudo minato up --detach\n  sudo minato up --name lab --node-cidr 172.31.0.0/24 --pod-cidr 10.245.0.0/16 --service-cidr 10.112.0.0/12",
		Args:    cobra.NoArgs,
	}
	fl := c.Flags()
	fl.BoolVarP(&f.detach, "detach", "d", false, "start in the background and return when it is ready")
	fl.BoolVar(&f.replace, "replace", false, "take over from the running process, for example with a newer minato: pods and connections go on")
	fl.IntVar(&f.nodes, "nodes", instance.DefaultNodes, "number of nodes, named node1, node2, ...")
	fl.StringArrayVar(&f.node, "node", nil, "a node as NAME or NAME=ADDRESS[,ADDRESS], instead of --nodes (may be repeated)")
	fl.StringVar(&f.ipFamily, "ip-family", "ipv4", "ipv4, ipv6, or dual: both, IPv4 first")
	fl.StringSliceVar(&f.nodeCIDR, "node-cidr", nil, "network of the nodes, of each IP family; its first address is the host's (default 172.30.0.0/24, fd00:172:30::/64)")
	fl.StringSliceVar(&f.podCIDR, "pod-cidr", nil, "range of pod addresses, a /24 or IPv6 /64 for each node (default 10.244.0.0/16, fd00:10:244::/56)")
	fl.StringSliceVar(&f.serviceCIDR, "service-cidr", nil, "range of ClusterIPs (default 10.96.0.0/12, fd00:10:96::/112)")
	fl.StringVar(&f.domain, "cluster-domain", instance.DefaultClusterDomain, "DNS domain of the cluster")
	fl.Uint16Var(&f.apiPort, "api-port", 0, "port of the Kubernetes API (default 6443, or the next free one)")
	fl.StringSliceVar(&f.upstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: the host's resolv.conf)")
	fl.StringSliceVar(&f.nodePortAddresses, "nodeport-addresses", nil, "ranges of node addresses at which NodePorts are answered (default: all addresses of nodes)")
	fl.BoolVar(&f.refuseExternalIPs, "refuse-external-ips", false, "do not serve spec.externalIPs, by which any Service can take any address")
	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig to add the cluster to (default $KUBECONFIG or ~/.kube/config)")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	return c
}

// config is what was asked for. An instance that exists keeps what is not said; what cannot be changed is refused.
func (f *upFlags) config(c *cobra.Command, inst instance.Instance) (instance.Config, error) {
	var want instance.Config
	old, exists, err := inst.Load()
	if err != nil {
		return want, err
	}
	changed := c.Flags().Changed
	if exists {
		want = old
	}
	if changed("nodes") || changed("node") {
		want.Nodes = nil
	}
	if !exists || changed("ip-family") {
		if want.Families, err = instance.ParseFamilies(f.ipFamily); err != nil {
			return want, &exitError{exitUsage, err}
		}
	}
	if err := f.setRanges(&want); err != nil {
		return want, &exitError{exitUsage, err}
	}
	if !exists || changed("cluster-domain") {
		want.ClusterDomain = f.domain
	}
	if changed("api-port") {
		want.APIPort = f.apiPort
	}
	if changed("upstream-dns") {
		if want.UpstreamDNS, err = parseServers(f.upstreamDNS); err != nil {
			return want, &exitError{exitUsage, err}
		}
	}
	if changed("nodeport-addresses") {
		if want.NodePorts, err = parsePrefixes("nodeport-addresses", f.nodePortAddresses); err != nil {
			return want, &exitError{exitUsage, err}
		}
	}
	if changed("refuse-external-ips") {
		want.NoExternalIPs = f.refuseExternalIPs
	}
	if want.Kubeconfig == "" || changed("kubeconfig") {
		want.Kubeconfig = kubeconfigPath(f.kubeconfig)
	}
	if want.Nodes, err = f.parseNodes(want.Nodes); err != nil {
		return want, &exitError{exitUsage, err}
	}
	if want, err = want.Complete(f.nodes); err != nil {
		return want, &exitError{exitUsage, err}
	}
	if flag := old.Changed(want); exists && flag != "" {
		return want, fmt.Errorf("delete the instance first (minato delete%s), or leave %s out: it was made with another value",
			nameFlag(inst), flag)
	}
	return want, nil
}

// setRanges takes the ranges that were given.
func (f *upFlags) setRanges(want *instance.Config) error {
	want.Families = slices.Clone(want.Families)
	for _, r := range []struct {
		flag  string
		texts []string
		field func(*instance.Family) *netip.Prefix
	}{
		{"node-cidr", f.nodeCIDR, func(f *instance.Family) *netip.Prefix { return &f.NodeCIDR }},
		{"pod-cidr", f.podCIDR, func(f *instance.Family) *netip.Prefix { return &f.PodCIDR }},
		{"service-cidr", f.serviceCIDR, func(f *instance.Family) *netip.Prefix { return &f.ServiceCIDR }},
	} {
		given, err := parsePrefixes(r.flag, r.texts)
		if err != nil {
			return err
		}
		if err := instance.SetRanges(want.Families, r.flag, given, r.field); err != nil {
			return err
		}
	}
	return nil
}

func parsePrefixes(flag string, texts []string) (all []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("give --%s a range such as 10.0.0.0/16: %q is none", flag, text)
		}
		all = append(all, p)
	}
	return all, nil
}

func (f *upFlags) parseNodes(nodes []instance.Node) ([]instance.Node, error) {
	for _, text := range f.node {
		name, addrs, given := strings.Cut(text, "=")
		n := instance.Node{Name: name}
		for _, addr := range strings.Split(addrs, ",") {
			if !given {
				break
			}
			a, err := netip.ParseAddr(addr)
			if err != nil {
				return nil, fmt.Errorf("give --node as NAME or NAME=ADDRESS: %q has no address: %w", text, err)
			}
			n.Addrs = append(n.Addrs, a)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// parseServers reads DNS servers as ADDRESS or ADDRESS:PORT.
func parseServers(texts []string) (servers []netip.AddrPort, err error) {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
			continue
		}
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("give --upstream-dns as ADDRESS or ADDRESS:PORT: %q is neither", text)
		}
		servers = append(servers, ap)
	}
	return servers, nil
}

func nameFlag(i instance.Instance) string { return (&options{name: i.Name}).nameFlag() }
