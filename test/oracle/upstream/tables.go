package upstream

import (
	"encoding/json"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// Endpoint is an endpoint as kube-proxy knows it.
type Endpoint struct {
	Addr                              string
	Ready, Serving, Terminating, Here bool // Here: on the node that asks
	Zones, Nodes                      []string
}

// Selection is what CategorizeEndpoints made of the endpoints of a Service port.
type Selection struct {
	All                    []Endpoint
	Node, Zone             string
	NodeHints              bool // the feature gate is on, as it is by default
	UsesCluster, UsesLocal bool
	Cluster, Local         []Endpoint
	Any                    bool // there are endpoints somewhere
}

// Join is what became of the EndpointSlices of a Service.
type Join struct {
	Namespace, Name, Node string
	Slices                []*discoveryv1.EndpointSlice
	Ports                 []JoinedPort
}

// JoinedPort is the endpoints of one port, in no order.
type JoinedPort struct {
	Name, Protocol string
	Endpoints      []Endpoint
}

// Endpoints are the calls of topology and of the slice cache in the tests of package proxy.
func Endpoints(dir string) (selections []Selection, joins []Join, err error) {
	s := Suite{Path: "pkg/proxy", Probes: []string{"endpoints.go.txt", "endpoint.go.txt"}, Tests: ".", Calls: map[string]string{
		"CategorizeEndpoints":                          "defer func() { oracleCategorized(endpoints, svcInfo, nodeName, topologyLabels, clusterEndpoints, localEndpoints, hasAnyEndpoints) }()",
		"EndpointSliceCache.endpointInfoByServicePort": "oracleJoin(cache, serviceNN, sliceDataByName)",
	}}
	err = Run(s, dir, func(line []byte) error {
		var kind struct{ Kind string }
		if err := json.Unmarshal(line, &kind); err != nil {
			return fmt.Errorf("read a record: %w", err)
		}
		if kind.Kind == "selection" {
			return read(line, &selections)
		}
		return read(line, &joins)
	})
	return selections, joins, err
}

// Cleaning is conntrack before and after a Service's stale flows were deleted.
type Cleaning struct {
	Ports         []CleanedPort
	Before, After []ConntrackFlow
}

// CleanedPort is a port of a Service whose flows are looked at.
type CleanedPort struct {
	Name, Protocol, ClusterIP string
	Others                    []string // load balancers' and external addresses
	Port, NodePort            int
	Serving                   []string
}

// ConntrackFlow is an entry of conntrack. The address of Dst is empty where any address of the node is meant.
type ConntrackFlow struct {
	Protocol      uint8
	Dst, ReplySrc string
}

// Cleanings are the calls of CleanStaleEntries, but those of a test that counts requests.
func Cleanings(dir string) (all []Cleaning, err error) {
	s := Suite{Path: "pkg/proxy/conntrack", Probes: []string{"conntrack.go.txt"}, Tests: "^(TestCleanStaleEntries|TestServiceWithoutEndpoints)$",
		Calls: map[string]string{"CleanStaleEntries": "defer oracleClean(ct, ipFamily, svcPortMap, endpointsMap)()"}}
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	return all, err
}

func read[T any](line []byte, all *[]T) error {
	var v T
	if err := json.Unmarshal(line, &v); err != nil {
		return fmt.Errorf("read a record: %w", err)
	}
	*all = append(*all, v)
	return nil
}
