package model

import (
	"cmp"
	"slices"
	"strings"
)

// Scope says where a packet comes from, as the node that handles it sees it. It is part of the key of every
// frontend, which makes traffic policy a matter of data.
type Scope uint8

const (
	Outside Scope = iota // neither of the below: another machine, or another node's pod
	Inside               // a pod of this node, or the node itself
)

func (s Scope) String() string {
	if s == Inside {
		return "inside"
	}
	return "outside"
}

// Verdict is what happens to a new connection to a frontend.
type Verdict uint8

const (
	Forward Verdict = iota // to one of the chosen backends
	Reject                 // no backend anywhere in the cluster: refused at once (TCP reset, ICMP port unreachable)
	Drop                   // backends exist, policy Local leaves none here: silence, so that clients try elsewhere
)

func (v Verdict) String() string { return [...]string{"forward", "reject", "drop"}[v] }

// Reason says why a backend was left out.
type Reason uint8

// The reasons for which Select leaves a backend out.
const (
	NotReady          Reason = iota + 1 // its readiness probe fails, or it has not started
	Terminating                         // it is being deleted, and others are ready
	TerminatingFailed                   // it is being deleted and no longer serves
	OtherNode                           // policy Local: it is on another node
	OtherNodeHint                       // hints prefer this node, and it is hinted for another
	OtherZoneHint                       // hints prefer this zone, and it is hinted for another
	OtherFamily                         // IPv4 frontends have IPv4 backends, IPv6 frontends have IPv6 backends
	Duplicate                           // the same address is there from another slice
)

func (r Reason) String() string {
	switch r {
	case NotReady:
		return "not ready"
	case Terminating:
		return "terminating, and others are ready"
	case TerminatingFailed:
		return "terminating and no longer serving"
	case OtherNode:
		return "on another node, and the traffic policy is Local"
	case OtherNodeHint:
		return "hinted for another node"
	case OtherZoneHint:
		return "hinted for another zone"
	case OtherFamily:
		return "of the other IP family"
	case Duplicate:
		return "listed twice"
	}
	return "chosen"
}

// LeftOut is a backend that was not chosen, and why.
type LeftOut struct {
	Backend *Backend
	Reason  Reason
}

// Selection is the answer of Select.
type Selection struct {
	Verdict  Verdict
	Policy   TrafficPolicy // in force for this scope
	Backends []*Backend    // chosen, sorted by address, without duplicates
	LeftOut  []LeftOut     // every other backend of the port
	// Fallback says that no backend was ready and that those which terminate but still serve were taken (KEP-1669).
	Fallback bool
}

// Policy is the traffic policy in force at a frontend for packets of a scope. Packets from inside never leave out a
// backend for ExternalTrafficPolicy: pods and nodes take the short way to all of them.
func (s *Service) Policy(k FrontendKind, scope Scope) TrafficPolicy {
	switch {
	case !k.External():
		return s.InternalTrafficPolicy
	case scope == Inside:
		return Cluster
	default:
		return s.ExternalTrafficPolicy
	}
}

// Select chooses the backends that a packet of the scope may reach at frontend f of s on node n, and says of each
// other one why not. It holds every rule of traffic policy, topology hints, readiness and termination; the rules are
// those of kube-proxy (k8s.io/kubernetes/pkg/proxy/topology.go, KEP-2086, KEP-1669, KEP-2433, KEP-4444). It is pure.
func Select(s *Service, f Frontend, n *Node, scope Scope) Selection {
	sel := Selection{Policy: s.Policy(f.Kind, scope)}
	all, left := candidates(s, f)
	sel.LeftOut = left
	usable := func(*Backend) Reason { return 0 }
	if sel.Policy == Local {
		usable = func(b *Backend) Reason {
			if n == nil || b.NodeName != n.Name {
				return OtherNode
			}
			return 0
		}
	} else if n != nil {
		usable = hinted(all, n)
	}
	choose(&sel, all, usable)
	switch {
	case len(sel.Backends) > 0:
		sel.Verdict = Forward
	case slices.ContainsFunc(all, func(b *Backend) bool { return b.Ready || b.Serving && b.Terminating }):
		sel.Verdict = Drop
	default:
		sel.Verdict = Reject
	}
	return sel
}

// candidates are the backends of the frontend's port and family, sorted, each address once. Of two with one address
// (a pod's that is new and one's that is gone, or a move between slices) the one that does not terminate counts.
func candidates(s *Service, f Frontend) (all []*Backend, left []LeftOut) {
	ipv6 := f.Addr.Addr().Is6()
	for b := range s.Backends(f.PortName, f.Protocol) {
		if b.Addr.Addr().Is6() == ipv6 {
			all = append(all, b)
		} else {
			left = append(left, LeftOut{b, OtherFamily})
		}
	}
	slices.SortFunc(all, compareBackends)
	unique := all[:0]
	for _, b := range all {
		if n := len(unique); n > 0 && unique[n-1].Addr == b.Addr {
			left = append(left, LeftOut{b, Duplicate})
		} else {
			unique = append(unique, b)
		}
	}
	return unique, left
}

// compareBackends orders backends by address, and those of one address by which is to be preferred.
func compareBackends(a, b *Backend) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	return cmp.Or(first(!a.Terminating, !b.Terminating), first(a.Ready, b.Ready), first(a.Serving, b.Serving),
		strings.Compare(a.NodeName, b.NodeName), strings.Compare(a.Target, b.Target))
}

// choose takes the ready ones that are usable, else those that terminate but still serve. Topology hints do not
// count in the second round; policy Local does.
func choose(sel *Selection, all []*Backend, usable func(*Backend) Reason) {
	start := len(sel.LeftOut)
	for _, b := range all {
		switch r := usable(b); {
		case !b.Ready:
			sel.LeftOut = append(sel.LeftOut, LeftOut{b, unready(b)})
		case r != 0:
			sel.LeftOut = append(sel.LeftOut, LeftOut{b, r})
		default:
			sel.Backends = append(sel.Backends, b)
		}
	}
	if len(sel.Backends) > 0 {
		return
	}
	sel.LeftOut = sel.LeftOut[:start]
	for _, b := range all {
		r := usable(b)
		switch {
		case sel.Policy == Local && r != 0:
			sel.LeftOut = append(sel.LeftOut, LeftOut{b, r})
		case b.Serving && b.Terminating:
			sel.Backends = append(sel.Backends, b)
		default:
			sel.LeftOut = append(sel.LeftOut, LeftOut{b, unready(b)})
		}
	}
	sel.Fallback = len(sel.Backends) > 0
}

func unready(b *Backend) Reason {
	switch {
	case b.Terminating && b.Serving:
		return Terminating
	case b.Terminating:
		return TerminatingFailed
	}
	return NotReady
}

// hinted gives the topology rule in force: hints count only if every ready backend has them and one of them names
// this node, or else this zone.
func hinted(all []*Backend, n *Node) func(*Backend) Reason {
	ready, allNodes, allZones, forNode, forZone := false, true, true, false, false
	for _, b := range all {
		if !b.Ready {
			continue
		}
		ready = true
		allNodes = allNodes && len(b.ForNodes) > 0
		allZones = allZones && len(b.ForZones) > 0
		forNode = forNode || slices.Contains(b.ForNodes, n.Name)
		forZone = forZone || slices.Contains(b.ForZones, n.Zone)
	}
	switch {
	case ready && allNodes && forNode:
		return func(b *Backend) Reason {
			if slices.Contains(b.ForNodes, n.Name) {
				return 0
			}
			return OtherNodeHint
		}
	case ready && allZones && forZone:
		return func(b *Backend) Reason {
			if slices.Contains(b.ForZones, n.Zone) {
				return 0
			}
			return OtherZoneHint
		}
	}
	return func(*Backend) Reason { return 0 }
}
