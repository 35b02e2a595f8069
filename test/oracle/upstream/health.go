package upstream

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// HealthEvent is something that happens to the health servers in the tests of package healthcheck, or an answer that
// those want. Kind says which of the other fields mean something.
type HealthEvent struct {
	Kind HealthKind

	NodePorts string            // ServiceServer: the range of --nodeport-addresses; empty: all addresses
	Ports     map[string]uint16 // PortsNow: of all Services
	Endpoints map[string]int    // EndpointsNow: ready ones on the node, of all Services
	Service   string            // Answer
	Weight    int               // Answer
	Healthy   bool              // Answer: kube-proxy is up to date

	At      time.Time     // ProxyServer, Queued, Updated, Asked
	Timeout time.Duration // ProxyServer: how long something may be queued
	Node    *corev1.Node  // ProxyServer, NodeChanged
	Family  string        // Queued, Updated: "IPv4" or "IPv6"
	Path    string        // Asked: /healthz or /livez
	Body    ProxyHealth   // Asked

	Status int // Answer, Asked
}

// HealthKind is what happens.
type HealthKind string

// What can happen to a health server.
const (
	ServiceServer HealthKind = "server"    // a test begins with a server of Services' ports
	PortsNow      HealthKind = "ports"     // these are the ports now
	EndpointsNow  HealthKind = "endpoints" // these are the endpoints now
	Answer        HealthKind = "answer"    // a Service's port is asked
	ProxyServer   HealthKind = "proxy"     // a test begins with a server of /healthz and /livez
	NodeChanged   HealthKind = "node"
	Queued        HealthKind = "queued"  // a change waits to be programmed
	Updated       HealthKind = "updated" // all was programmed
	Asked         HealthKind = "asked"   // /healthz or /livez is
)

// ProxyHealth is the body of an answer of /healthz and /livez.
type ProxyHealth struct {
	LastUpdated, CurrentTime time.Time
	NodeEligible             *bool
	Healthy                  bool
	Status                   map[string]FamilyHealth
}

// FamilyHealth is how one IP family stands.
type FamilyHealth struct {
	LastUpdated time.Time
	Healthy     bool
}

// Health is what happens in each test of package healthcheck, in order.
func Health(dir string) (tests [][]HealthEvent, err error) {
	s := Suite{Path: "pkg/proxy/healthcheck", Probes: []string{"health.go.txt"}, Tests: ".", Calls: map[string]string{
		"newServiceHealthServer":         "oracleServer(nodePortAddresses)",
		"server.SyncServices":            "oraclePorts(newServices)",
		"server.SyncEndpoints":           "oracleCounts(newEndpoints)",
		"tHandler":                       "oracleAnswer(nsn, status, endpoints, kubeProxyHealthy)",
		"newProxyHealthServer":           "oracleProxy(c.Now(), healthTimeout, nodeManager.Node())",
		"ProxyHealthServer.QueuedUpdate": `oracleUpdate("queued", hs.clock.Now(), ipFamily)`,
		"ProxyHealthServer.Updated":      `oracleUpdate("updated", hs.clock.Now(), ipFamily)`,
		"testNodeManager.update":         "oracleNode(node)",
		"testHTTPHandler":                "oracleAsked(string(hsTest.url), status, expectedPayload)",
	}}
	var all []HealthEvent
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	for _, e := range all {
		if e.Kind == ServiceServer || e.Kind == ProxyServer {
			tests = append(tests, nil)
		}
		tests[len(tests)-1] = append(tests[len(tests)-1], e)
	}
	return tests, err
}
