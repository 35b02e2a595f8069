package model

import (
	"hash/maphash"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Snapshot is the whole world at one revision, as one node sees it. It is immutable and may be shared by any number
// of goroutines. Empty makes the first one.
type Snapshot struct {
	Revision uint64 // grows by one with every change; the same number on every node of this process
	// Complete says that every source has been read once. Before that nothing may be deleted from a kernel.
	Complete bool
	Node     *Node // whose view this is; nil in a Builder's own
	// Peers are the agents that the node's own has ever heard, itself with them, sorted by name.
	Peers []Peer
	// LoadBalancing is nil until the configuration was read once: nobody may give or take addresses before.
	LoadBalancing *LoadBalancing
	// IngressesKnown says that Ingresses, their classes and certificates have been read once.
	IngressesKnown bool
	DNSKnown       bool       // what is configured of DNS has been read once
	DNS            *DNSConfig // nil: nothing is configured

	services   ordered[ServiceName, *Service]
	ingresses  ordered[IngressName, *Ingress]
	nodes      ordered[string, *Node]
	namespaces ordered[string, struct{ exists bool }]
	conflicts  []Conflict
}

// seed is another in every process, so that nobody can choose names which make the treaps deep. All snapshots of a
// process share it: equal contents have equal shapes.
var seed = maphash.MakeSeed()

func hashName(n ServiceName) uint64 { return maphash.Comparable(seed, n) }

func hashString(s string) uint64 { return maphash.String(seed, s) }

// Empty is a world without anything in it, not complete.
func Empty() *Snapshot {
	return &Snapshot{
		services:   ordered[ServiceName, *Service]{compare: ServiceName.Compare, hash: hashName},
		ingresses:  ordered[IngressName, *Ingress]{compare: IngressName.Compare, hash: hashIngress},
		nodes:      ordered[string, *Node]{compare: strings.Compare, hash: hashString},
		namespaces: ordered[string, struct{ exists bool }]{compare: strings.Compare, hash: hashString},
	}
}

// On is the snapshot as the node sees it. The Services are shared.
func (s *Snapshot) On(n *Node) *Snapshot {
	cp := *s
	cp.Node = n
	return &cp
}

// WithPeers is the snapshot as an agent sees it that hears these. They are given away.
func (s *Snapshot) WithPeers(p []Peer) *Snapshot {
	cp := *s
	cp.Peers = p
	return &cp
}

// Service finds a Service by name, nil when there is none.
func (s *Snapshot) Service(n ServiceName) *Service {
	svc, _ := s.services.get(n)
	return svc
}

// Len is the number of Services.
func (s *Snapshot) Len() int { return s.services.size }

// Services goes over all Services in the order of their names.
func (s *Snapshot) Services() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		s.services.root.walk(func(_ ServiceName, v *Service) bool { return yield(v) })
	}
}

// ServicesIn goes over the Services of a namespace in the order of their names, and over no others.
func (s *Snapshot) ServicesIn(namespace string) iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		s.services.root.walkFrom(ServiceName{Namespace: namespace}, ServiceName.Compare, func(n ServiceName, v *Service) bool {
			return n.Namespace == namespace && yield(v)
		})
	}
}

// Nodes goes over all nodes of the cluster in the order of their names.
func (s *Snapshot) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		s.nodes.root.walk(func(_ string, n *Node) bool { return yield(n) })
	}
}

// NodeNamed finds a node of the cluster, nil when there is none.
func (s *Snapshot) NodeNamed(name string) *Node {
	n, _ := s.nodes.get(name)
	return n
}

// HasNamespace reports whether the namespace exists: DNS answers NODATA and not NXDOMAIN for its name.
func (s *Snapshot) HasNamespace(name string) bool {
	v, _ := s.namespaces.get(name)
	return v.exists
}

// Namespaces goes over the names of all namespaces, sorted.
func (s *Snapshot) Namespaces() iter.Seq[string] {
	return func(yield func(string) bool) {
		s.namespaces.root.walk(func(n string, _ struct{ exists bool }) bool { return yield(n) })
	}
}

// Conflicts lists the frontends that more than one Service claims, sorted by address.
func (s *Snapshot) Conflicts() []Conflict { return s.conflicts }

// With returns the next snapshot, made by edit on a copy. It is for package source, the single writer.
func (s *Snapshot) With(edit func(*Edit)) *Snapshot {
	cp := *s
	cp.Revision++
	e := Edit{s: &cp}
	edit(&e)
	e.s = nil
	return &cp
}

// Edit changes a snapshot before it is published. It must not be kept after With returns.
type Edit struct{ s *Snapshot }

// SetService puts svc in the place of the one of its name. The caller gives it away.
func (e *Edit) SetService(svc *Service) { e.s.services = e.s.services.set(svc.Name, svc) }

// DeleteService removes a Service.
func (e *Edit) DeleteService(n ServiceName) { e.s.services = e.s.services.delete(n) }

// SetNode puts n in the place of the node of its name. The caller gives it away.
func (e *Edit) SetNode(n *Node) { e.s.nodes = e.s.nodes.set(n.Name, n) }

// DeleteNode removes a node.
func (e *Edit) DeleteNode(name string) { e.s.nodes = e.s.nodes.delete(name) }

// SetNamespace records that a namespace exists, or no longer does.
func (e *Edit) SetNamespace(name string, exists bool) {
	if exists {
		e.s.namespaces = e.s.namespaces.set(name, struct{ exists bool }{true})
	} else {
		e.s.namespaces = e.s.namespaces.delete(name)
	}
}

// SetConflicts replaces the list of conflicts.
func (e *Edit) SetConflicts(c []Conflict) {
	c = slices.Clone(c)
	slices.SortFunc(c, func(a, b Conflict) int {
		if d := a.Addr.Compare(b.Addr); d != 0 {
			return d
		}
		return a.Loser.Compare(b.Loser)
	})
	e.s.conflicts = c
}

// SetLoadBalancing replaces the pools and what belongs to them. The caller gives l away.
func (e *Edit) SetLoadBalancing(l *LoadBalancing) { e.s.LoadBalancing = l }

// SetComplete records that every source has been read once.
func (e *Edit) SetComplete() { e.s.Complete = true }

// ServiceChange is a Service before and after; nil where it did not exist.
type ServiceChange struct {
	Name     ServiceName
	Old, New *Service
}

// Changes is what differs between two snapshots.
type Changes struct {
	Services   []ServiceChange // in the order of their names
	Ingresses  []IngressChange // the same
	Nodes      bool            // some node, or the snapshot's own
	Namespaces []string        // came or went
	Peers      bool            // some peer, or its state
	// LoadBalancing says that the pools or what belongs to them differ.
	LoadBalancing bool
}

// Diff compares two snapshots by pointer, in time proportional to what differs. A nil old means everything is new.
func Diff(old, new *Snapshot) Changes {
	if old == nil {
		old = Empty()
	}
	var c Changes
	new.services.diff(old.services.root, new.services.root, func(n ServiceName, o, v *Service) {
		c.Services = append(c.Services, ServiceChange{n, o, v})
	})
	new.ingresses.diff(old.ingresses.root, new.ingresses.root, func(n IngressName, o, v *Ingress) {
		c.Ingresses = append(c.Ingresses, IngressChange{n, o, v})
	})
	new.nodes.diff(old.nodes.root, new.nodes.root, func(string, *Node, *Node) { c.Nodes = true })
	c.Nodes = c.Nodes || old.Node != new.Node
	c.LoadBalancing = old.LoadBalancing != new.LoadBalancing
	c.Peers = !slices.Equal(old.Peers, new.Peers)
	type exists = struct{ exists bool }
	new.namespaces.diff(old.namespaces.root, new.namespaces.root, func(n string, _, _ exists) {
		c.Namespaces = append(c.Namespaces, n)
	})
	return c
}

// LocalNode finds the node that has addr as one of its own addresses, nil when none does.
func (s *Snapshot) LocalNode(addr netip.Addr) *Node {
	for n := range s.Nodes() {
		if slices.Contains(n.Addrs, addr) {
			return n
		}
	}
	return nil
}
