package upstream

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Tracked is something that happened to a change tracker in the tests of package proxy, or that it told then. Tracker
// numbers the trackers; Kind says which of the other fields mean something.
type Tracked struct {
	Kind         TrackedKind
	Tracker      int
	Family, Node string

	Service *corev1.Service            // Told, Converted
	Slice   *discoveryv1.EndpointSlice // ToldSlice
	Removed bool                       // Told, ToldSlice: the object is deleted
	Changed bool                       // ToldSlice: and that is a change

	Updated       []string       // Services, Changes: the names of Services that differ from the time before
	ServicePorts  []ServicePort  // Services: all; Converted: those of the Service
	EndpointPorts []EndpointPort // Changes: those of Services that differ; Local: all
	Local         map[string]int // Local: ready endpoints on the node, by Service

	Started  time.Time              // Triggers: the tracker's
	Triggers map[string][]time.Time // Triggers: since the time before, by Service
}

// TrackedKind is what happened.
type TrackedKind string

// What can happen to a tracker.
const (
	Told      TrackedKind = "service"   // of a Service
	Converted TrackedKind = "converted" // a Service was, to its ports
	Services  TrackedKind = "services"  // it was asked what has changed
	ToldSlice TrackedKind = "slice"     // of an EndpointSlice
	Applied   TrackedKind = "applied"   // what it was told before is no change any more
	Changes   TrackedKind = "changes"   // it was asked what has changed
	Local     TrackedKind = "local"     // which endpoints are of the node
	Triggers  TrackedKind = "triggers"  // when the causes of changes happened
)

// ServicePort is a port of a Service in one IP family, as kube-proxy knows it.
type ServicePort struct {
	Service, Name, Protocol, ClusterIP       string
	Port, NodePort, HealthCheckNodePort      int
	ExternalIPs, LoadBalancers, SourceRanges []string
	Affinity                                 int // seconds
	ExternalLocal, InternalLocal             bool
}

// EndpointPort is the endpoints of a port of a Service.
type EndpointPort struct {
	Service, Name, Protocol string
	Endpoints               []Endpoint
}

// Trackers are what happens to the trackers of Services and EndpointSlices in the tests of package proxy, in order.
func Trackers(dir string) (all []Tracked, err error) {
	s := Suite{Path: "pkg/proxy", Probes: []string{"trackers.go.txt", "outer.go.txt", "endpoint.go.txt"}, Tests: ".", Calls: map[string]string{
		"ServiceChangeTracker.Update":                "oracleService(sct, previous, current)",
		"ServiceChangeTracker.serviceToServiceMap":   `if oracleOuter("convert") { m := sct.serviceToServiceMap(service); oracleConverted(sct, service, m); return m }`,
		"ServicePortMap.Update":                      `if oracleOuter("services") { r := sm.Update(sct); oracleServicesUpdated(sct, sm, r); return r }`,
		"EndpointsChangeTracker.EndpointSliceUpdate": "if endpointSlice.AddressType != ect.addressType { oracleSlice(ect.endpointSliceCache, endpointSlice, removeSlice, false) }",
		"EndpointSliceCache.updatePending":           `if oracleOuter("slice") { c := cache.updatePending(endpointSlice, remove); oracleSlice(cache, endpointSlice, remove, c); return c }`,
		"EndpointSliceCache.checkoutChanges":         `if oracleOuter("changes") { c := cache.checkoutChanges(); oracleChanges(cache, c); return c }`,
		"initializeCache":                            "defer oracleApplied(endpointSliceCache)",
		"EndpointsMap.getLocalReadyEndpointIPs":      `if oracleOuter("local") { l := em.getLocalReadyEndpointIPs(); oracleLocal(em, l); return l }`,
		"EndpointsMap.Update":                        `if ect != nil && oracleOuter("update") { r := em.Update(ect); oracleTriggers(ect, r); return r }`,
	}}
	err = Run(s, dir, func(line []byte) error { return read(line, &all) })
	return all, err
}
