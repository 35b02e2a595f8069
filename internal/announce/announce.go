// Package announce plans which node makes which load balancer address known on its network, and says of every other
// node why it does not.
//
// An address has one announcer at a time, since all its traffic goes to whoever answers for it. It is chosen by
// rendezvous hashing over the nodes that can serve it, so that a node which goes moves only its own addresses, and no
// node has to agree with another. The hash is MetalLB's (its speaker/layer2_controller.go): a cluster that moves from
// there keeps its announcers. A node counts as alive while its Node object is Ready and its agent, if it was ever heard,
// is heard (Snapshot.Peers): heartbeats are quicker than Leases. A node that is cut off from most others announces
// nothing, so that the two sides of a network in parts never both do.
//
// It sends and answers nothing: package arp below it does. It gives no addresses: package ipam does.
package announce

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"minato/internal/model"
)

// Reason says why a node does not announce an address, or why nobody does.
type Reason uint8

// The reasons, from those of the address to those of the node.
const (
	Elsewhere   Reason = iota + 1 // another load balancer runs, and two would answer
	NoPool                        // no pool in force has the address
	OtherWay                      // its pool is announced by BGP
	Unserved                      // no Service in force has a frontend there
	NoEndpoint                    // of its Services none has a ready endpoint
	Excluded                      // label of the node
	NodeUnready                   // the node is not Ready
	NoFamily                      // the node has no address of the IP family
	NodeSilent                    // its agent sends no heartbeats any more
	NodeCutOff                    // its agent hears less than half of the others
	NodeNew                       // its agent is back for a moment only
	NoLocal                       // externalTrafficPolicy is Local, and no ready endpoint is on the node
	NotChosen                     // another node announces it
)

func (r Reason) String() string {
	switch r {
	case Elsewhere:
		return "another load balancer runs in the cluster (minato status names it)"
	case NoPool:
		return "no pool has it"
	case OtherWay:
		return "its pool has protocol bgp, which is not served yet"
	case Unserved:
		return "no node answers there: another Service has its ports, or another proxy serves its Service"
	case NoEndpoint:
		return "no endpoint is ready"
	case Excluded:
		return "label node.kubernetes.io/exclude-from-external-load-balancers"
	case NodeUnready:
		return "node not Ready"
	case NoFamily:
		return "node without an address of this IP family"
	case NodeSilent:
		return "no heartbeat from the node"
	case NodeCutOff:
		return "the node hears less than half of the others"
	case NodeNew:
		return "the node is back for a moment only"
	case NoLocal:
		return "externalTrafficPolicy is Local, and no endpoint here is ready"
	case NotChosen:
		return "another node is chosen"
	}
	return "announced"
}

// LeftOut is a node that does not announce an address.
type LeftOut struct {
	Node   string
	Reason Reason
}

// Announcement is what happens to one address.
type Announcement struct {
	Addr     netip.Addr
	Services []model.ServiceName // that have it, sorted
	Pool     string
	Node     string // who announces it; empty: nobody
	Why      Reason // why nobody does; 0 when it is announced, or when LeftOut says it
	LeftOut  []LeftOut
}

// Plan is the announcements of all addresses. It is immutable.
type Plan struct {
	of  *model.Snapshot // as nobody's view: the plan is the same for all nodes
	all map[netip.Addr]*Announcement
}

// New plans a snapshot.
func New(s *model.Snapshot) *Plan { return (&Plan{}).Next(s) }

// addrsOf are the load balancer addresses of a Service that may be ours to announce.
func addrsOf(s *model.Service) []netip.Addr {
	if s == nil || s.Type != model.TypeLoadBalancer {
		return nil
	}
	return s.LoadBalancerAddrs
}

// Announcements are all of them, by address.
func (p *Plan) Announcements() []*Announcement {
	out := slices.Collect(maps.Values(p.all))
	slices.SortFunc(out, func(a, b *Announcement) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Of is what happens to one address, nil when no Service has it.
func (p *Plan) Of(a netip.Addr) *Announcement { return p.all[a] }

// On goes over the announcements of one node, in no order.
func (p *Plan) On(node string) iter.Seq[*Announcement] {
	return func(yield func(*Announcement) bool) {
		for _, a := range p.all {
			if a.Node == node && !yield(a) {
				return
			}
		}
	}
}

// plan decides for one address.
func plan(l *model.LoadBalancing, nodes []candidate, addr netip.Addr, services []*model.Service) *Announcement {
	a := &Announcement{Addr: addr}
	for _, s := range services {
		a.Services = append(a.Services, s.Name)
	}
	pool := l.Pool(addr)
	if pool != nil {
		a.Pool = pool.Name
	}
	served, ready := state(addr, services)
	switch {
	case l != nil && l.Elsewhere != "":
		a.Why = Elsewhere
	case l != nil && l.Problem != "" && len(l.Pools) == 0:
		// No configuration was ever good since the start: go on with what was given before.
	case pool == nil:
		a.Why = NoPool
	case pool.Protocol != model.Layer2:
		a.Why = OtherWay
	}
	switch {
	case a.Why != 0:
	case !served:
		a.Why = Unserved
	case !ready:
		a.Why = NoEndpoint
	}
	if a.Why == 0 {
		a.choose(nodes, services)
	}
	return a
}

// frontends goes over the frontends at an address.
func frontends(addr netip.Addr, services []*model.Service) func(yield func(*model.Service, model.Frontend) bool) {
	return func(yield func(*model.Service, model.Frontend) bool) {
		for _, s := range services {
			for _, f := range s.Frontends {
				if f.Kind == model.LoadBalancer && f.Addr.Addr() == addr && !yield(s, f) {
					return
				}
			}
		}
	}
}

// state says whether anybody answers at an address, and whether any node would forward.
func state(addr netip.Addr, services []*model.Service) (served, ready bool) {
	for s, f := range frontends(addr, services) {
		served = true
		ready = ready || model.Select(s, f, nil, model.Outside).Verdict != model.Reject
	}
	return served, ready
}

// candidate is a node with what keeps it from announcing anything, 0 when nothing does.
type candidate struct {
	*model.Node
	unfit Reason
}

// candidates judges all nodes. Where every node has the label that excludes it, nobody would be left (a cluster of
// one), so the label does not count then.
func candidates(s *model.Snapshot) (all []candidate) {
	peers := map[string]model.PeerState{}
	for _, p := range s.Peers {
		peers[p.NodeName] = p.State
	}
	for n := range s.Nodes() {
		c := candidate{Node: n}
		switch {
		case !n.Ready:
			c.unfit = NodeUnready
		case peers[n.Name] == model.PeerSilent:
			c.unfit = NodeSilent
		case peers[n.Name] == model.PeerCutOff:
			c.unfit = NodeCutOff
		case peers[n.Name] == model.PeerNew:
			c.unfit = NodeNew
		}
		all = append(all, c)
	}
	excluded := func(c candidate) bool { return c.NoLoadBalancers }
	if slices.ContainsFunc(all, func(c candidate) bool { return !excluded(c) }) {
		for i := range all {
			if all[i].unfit == 0 && excluded(all[i]) {
				all[i].unfit = Excluded
			}
		}
	}
	return all
}

// choose takes, of the nodes that would forward connections, the first by hash. One that is new counts where there is
// no other, as when the whole machine has stood still.
func (a *Announcement) choose(nodes []candidate, services []*model.Service) {
	var fit, new []string
	for _, n := range nodes {
		switch {
		case n.unfit != 0 && n.unfit != NodeNew:
			a.LeftOut = append(a.LeftOut, LeftOut{n.Name, n.unfit})
		case !n.Addr(a.Addr.Is6()).IsValid():
			a.LeftOut = append(a.LeftOut, LeftOut{n.Name, NoFamily})
		case !forwards(a.Addr, services, n.Node):
			a.LeftOut = append(a.LeftOut, LeftOut{n.Name, NoLocal})
		case n.unfit == NodeNew:
			new = append(new, n.Name)
		default:
			fit = append(fit, n.Name)
		}
	}
	if len(fit) == 0 {
		fit, new = new, nil
	}
	if len(fit) == 0 {
		return
	}
	a.Node = slices.MinFunc(fit, func(x, y string) int { return bytes.Compare(weight(x, a.Addr), weight(y, a.Addr)) })
	for _, n := range fit {
		if n != a.Node {
			a.LeftOut = append(a.LeftOut, LeftOut{n, NotChosen})
		}
	}
	for _, n := range new {
		a.LeftOut = append(a.LeftOut, LeftOut{n, NodeNew})
	}
}

// forwards reports whether a node has a backend for connections from outside to some port of the address.
func forwards(addr netip.Addr, services []*model.Service, n *model.Node) bool {
	for s, f := range frontends(addr, services) {
		if model.Select(s, f, n, model.Outside).Verdict == model.Forward {
			return true
		}
	}
	return false
}

func weight(node string, addr netip.Addr) []byte {
	sum := sha256.Sum256([]byte(node + "#" + addr.String()))
	return sum[:]
}
