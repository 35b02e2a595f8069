// Package model is what minato knows: the Services of the cluster as one node sees them, in one immutable Snapshot.
//
// Everything downstream (dataplane, DNS, announcements, Ingress, explain) is computed from a Snapshot and nothing
// else, so one revision number names the same world for all of them. Values are never changed after they are
// published; an unchanged Service is the same pointer in the next snapshot. The rules of traffic policy, topology,
// readiness and termination are written here, once, in Select.
//
// It imports the standard library only. It does no I/O, reads no clock, and knows no Kubernetes types: package
// source makes snapshots from API objects. It holds no record of what was applied (package status does).
package model

import (
	"cmp"
	"net/netip"
	"strings"
	"time"
)

// ServiceName is a Service's namespace and name.
type ServiceName struct{ Namespace, Name string }

func (n ServiceName) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n ServiceName) Compare(o ServiceName) int {
	return cmp.Or(strings.Compare(n.Namespace, o.Namespace), strings.Compare(n.Name, o.Name))
}

// Protocol is a transport protocol by its IANA number.
type Protocol uint8

// The protocols a Service port can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return "unknown"
}

// TrafficPolicy says which backends a frontend may use.
type TrafficPolicy uint8

// The traffic policies of Service spec. The zero value is the default.
const (
	Cluster TrafficPolicy = iota // any backend
	Local                        // those on the node that the traffic reached
)

func (p TrafficPolicy) String() string {
	if p == Local {
		return "Local"
	}
	return "Cluster"
}

// FrontendKind says where a frontend's address comes from.
type FrontendKind uint8

// The kinds of frontend. All but ClusterIP are external: they follow the external traffic policy.
const (
	ClusterIP FrontendKind = iota
	NodePort
	ExternalIP
	LoadBalancer
)

func (k FrontendKind) String() string {
	return [...]string{"ClusterIP", "NodePort", "ExternalIP", "LoadBalancer"}[k]
}

// External reports whether the frontend is meant for clients outside the cluster.
func (k FrontendKind) External() bool { return k != ClusterIP }

// ServiceType is spec.type.
type ServiceType uint8

// The types of Service, in the order in which each includes the one before; ExternalName stands apart.
const (
	TypeClusterIP ServiceType = iota
	TypeNodePort
	TypeLoadBalancer
	TypeExternalName
)

func (t ServiceType) String() string {
	return [...]string{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}[t]
}

// Port is one entry of spec.ports.
type Port struct {
	Name        string // may be empty when it is the only one
	Protocol    Protocol
	Port        uint16
	TargetPort  string // as written: a number or the name of a container port
	NodePort    uint16 // 0 when there is none
	AppProtocol string
}

// Frontend is an address at which a Service answers. A NodePort frontend has the unspecified address of its family:
// it is answered at every address of Node.Addrs of that family.
type Frontend struct {
	Addr     netip.AddrPort
	Protocol Protocol
	Kind     FrontendKind
	PortName string // joins the frontend to its backends
}

// Backend is one address and port of one endpoint. An endpoint with two ports is two backends.
type Backend struct {
	Addr                        netip.AddrPort // port 0: a headless Service without ports
	Protocol                    Protocol
	PortName                    string
	Hostname                    string // DNS name below the Service, may be empty
	Target                      string // pod "namespace/name" behind it, may be empty
	NodeName, Zone              string
	ForZones, ForNodes          []string // hints of the EndpointSlice controller (KEP-2433, KEP-4444)
	Ready, Serving, Terminating bool
}

// BackendSlice is one EndpointSlice: the unit in which backends are shared between snapshots. A Service of 5,000
// backends which changes one of them gets one new slice of at most 1,000.
type BackendSlice struct {
	Name     string
	IPv6     bool
	Backends []Backend
	// Triggered is when the cause of the newest change happened (annotation
	// endpoints.kubernetes.io/last-change-trigger-time); zero when it is not known.
	Triggered time.Time
}

// Service is one Service with its backends. It is immutable once it is in a Snapshot.
type Service struct {
	Name                  ServiceName
	Type                  ServiceType
	Headless              bool         // clusterIP None
	Proxied               bool         // false: DNS knows it, the dataplane leaves it alone (headless, ExternalName, service-proxy-name)
	ExternalName          string       // target of a CNAME, TypeExternalName only
	ClusterIPs            []netip.Addr // primary family first
	Ports                 []Port
	Frontends             []Frontend
	Slices                []*BackendSlice // sorted by name
	Selector              string          // "app=web,tier=front", sorted; empty for a selectorless Service
	InternalTrafficPolicy TrafficPolicy
	ExternalTrafficPolicy TrafficPolicy
	SessionAffinity       time.Duration // 0 none, else the ClientIP timeout
	SourceRanges          []netip.Prefix
	HealthCheckNodePort   uint16
	PublishNotReady       bool
	PreferSameNode        bool      // trafficDistribution, used to order headless answers
	PreferSameZone        bool      // the same
	Created               time.Time // decides conflicts: the older Service wins
	LoadBalancer          AddressRequest
	LoadBalancerAddrs     []netip.Addr // status.loadBalancer.ingress
	Warnings              []string     // what source could not use, in words for the user
}

// Backends calls yield for every backend of the port named portName and protocol p, in slice order.
func (s *Service) Backends(portName string, p Protocol) func(yield func(*Backend) bool) {
	return func(yield func(*Backend) bool) {
		for _, sl := range s.Slices {
			for i := range sl.Backends {
				if b := &sl.Backends[i]; b.PortName == portName && b.Protocol == p && !yield(b) {
					return
				}
			}
		}
	}
}

// AllBackends calls yield for every backend of every port, in slice order.
func (s *Service) AllBackends() func(yield func(*Backend) bool) {
	return func(yield func(*Backend) bool) {
		for _, sl := range s.Slices {
			for i := range sl.Backends {
				if !yield(&sl.Backends[i]) {
					return
				}
			}
		}
	}
}

// Node is one node of the cluster.
type Node struct {
	Name     string
	Netns    string       // mount point of its namespace; empty: the host's own. Known for this machine's nodes only
	Addrs    []netip.Addr // node addresses, primary first; the first of each family is the source of masqueraded traffic
	PodCIDRs []netip.Prefix
	// NodePorts are the ranges whose addresses of the node answer NodePorts. Of a family without a range all of them do
	// (k8s.io/kubernetes/pkg/proxy/util/nodeport_addresses.go).
	NodePorts []netip.Prefix
	Zone      string
	Ready     bool
	// NoLoadBalancers is the label node.kubernetes.io/exclude-from-external-load-balancers.
	NoLoadBalancers bool
	// Leaving says that the node is being deleted, or that the cluster autoscaler will (taint
	// ToBeDeletedByClusterAutoscaler). What it has goes on, but load balancers are to turn away (KEP-3836).
	Leaving bool
}

// Addr is the node's first address of the family, invalid when it has none.
func (n *Node) Addr(ipv6 bool) netip.Addr {
	for _, a := range n.Addrs {
		if a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

// NodePortAddrs are the addresses of the family at which the node answers NodePorts.
func (n *Node) NodePortAddrs(ipv6 bool) (addrs []netip.Addr) {
	for _, a := range n.Addrs {
		if a.Is6() == ipv6 && n.AnswersNodePorts(a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// AnswersNodePorts reports whether NodePorts are answered at an address of the node.
func (n *Node) AnswersNodePorts(a netip.Addr) bool {
	limited := false
	for _, p := range n.NodePorts {
		if p.Contains(a) {
			return true
		}
		limited = limited || p.Addr().Is6() == a.Is6()
	}
	return !limited
}

// IsLocal reports whether a packet from addr comes from this node or from one of its pods.
func (n *Node) IsLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	for _, a := range n.Addrs {
		if a == addr {
			return true
		}
	}
	for _, p := range n.PodCIDRs {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Peer is the agent of a node, as the heartbeats between agents show it.
type Peer struct {
	NodeName string
	State    PeerState
}

// PeerState says whether an agent may announce addresses.
type PeerState uint8

// The states of a peer.
const (
	PeerFit    PeerState = iota // heard lately
	PeerNew                     // heard lately, but back for a moment only
	PeerCutOff                  // it does not hear most of the others
	PeerSilent                  // was heard, and is no longer
)

// Conflict is a frontend that two Services claim. The older Service keeps it.
type Conflict struct {
	Addr     netip.AddrPort
	Protocol Protocol
	Winner   ServiceName
	Loser    ServiceName
}
