package upstream

import corev1 "k8s.io/api/core/v1"

// NodePortAddresses is what --nodeport-addresses came to in a test of package util, for one IP family.
type NodePortAddresses struct {
	Kind   NodePortKind
	Family corev1.IPFamily
	Ranges []string // of both families

	Has, Answers []string // Addresses: those of the node with their masks, and which of them answer
	All          bool     // Addresses: any would
	Loopback     bool     // Loopback: one of 127.0.0.0/8 does
}

// NodePortKind is what was asked.
type NodePortKind string

// What can be asked of the ranges.
const (
	Addresses NodePortKind = "addresses"
	Loopback  NodePortKind = "loopback"
)

// NodePorts are the questions about --nodeport-addresses in the tests of package util.
func NodePorts(dir string) (all []NodePortAddresses, err error) {
	s := Suite{Path: "pkg/proxy/util", Probes: []string{"nodeports.go.txt", "outer.go.txt"}, Tests: "^(TestGetNodeIPs|TestContainsIPv4Loopback)$",
		Calls: map[string]string{
			"NewNodePortAddresses":                   "oracleAsked = oracleRanges{family, cidrStrings}",
			"NodePortAddresses.GetNodeIPs":           `if oracleOuter("ips") { ips, err := npa.GetNodeIPs(nw); oracleNodeIPs(npa, nw, ips); return ips, err }`,
			"NodePortAddresses.ContainsIPv4Loopback": "oracleLoopback(npa)",
		}}
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	return all, err
}

// NodeEvent is something that happened to the node of kube-proxy in the tests of packages proxy and config. Kind says
// which of the other fields mean something.
type NodeEvent struct {
	Kind   NodeKind
	Object *corev1.Node // nil: the API does not have it

	IPs, PodCIDRs   []string     // Read: what kube-proxy takes for the node's
	Before, After   *corev1.Node // NodeTold, NodeGone: what it knows
	WatchesPodCIDRs bool         // Started, NodeTold, NodeGone: pods are told by them
	Exits           int          // NodeTold, NodeGone: how often it ended itself
	Zone            string       // Topology: what endpoints are chosen by
	Told            bool         // Topology: that is a change
}

// NodeKind is what happened.
type NodeKind string

// What can happen.
const (
	Read     NodeKind = "read"
	Started  NodeKind = "started"
	NodeTold NodeKind = "changed"
	NodeGone NodeKind = "deleted"
	Topology NodeKind = "topology"
)

// Nodes are what happens to nodes, in order.
func Nodes(dir string) (all []NodeEvent, err error) {
	s := Suite{Path: "pkg/proxy", Probes: []string{"nodes.go.txt", "outer.go.txt"}, Tests: "^(TestNewNodeManager|TestNodeManager.*)$",
		Calls: map[string]string{
			"getNodeInfo":              `if oracleOuter("read") { n, ips, c := getNodeInfo(nodeLister, nodeName); oracleRead(n, ips, c); return n, ips, c }`,
			"newNodeManager":           "oracleStarted(watchPodCIDRs)",
			"NodeManager.OnNodeChange": `defer oracleEvent(n, "changed", node)()`,
			"NodeManager.OnNodeDelete": `defer oracleEvent(n, "deleted", node)()`,
		}}
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	return all, err
}

// Topologies are what happens to the labels of nodes, in order.
func Topologies(dir string) (all []NodeEvent, err error) {
	s := Suite{Path: "pkg/proxy/config", Probes: []string{"topology.go.txt"}, Tests: "^TestNewNodeTopologyConfig$",
		Calls: map[string]string{"NodeTopologyConfig.handleNodeEvent": "defer oracleTopology(n, obj)()"}}
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	return all, err
}
