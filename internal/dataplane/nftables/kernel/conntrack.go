//go:build linux

package kernel

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"time"

	"minato/internal/model"
	"minato/internal/nfnl"
)

// Conntrack is the connection tracking of a namespace. *nfnl.Conn is the real one.
type Conntrack interface {
	Flows(f nfnl.Family, protocol uint8, yield func(nfnl.Flow)) error
	DeleteFlow(nfnl.Flow) error
}

// A flow stays translated as its first packet was, for as long as packets come. Of TCP that is wanted. A client of UDP
// or SCTP never learns that its endpoint is gone, and goes on for ever: so such flows are deleted. What is translated
// to an endpoint that still serves is left alone, whether or not a new flow would go there (kubernetes#139628, #48370
// and #122740 are what went wrong with that in kube-proxy, whose conntrack/cleanup.go has the rule).
//
// Of TCP it is not wanted before there is a connection. Where a node dies, its endpoints go without having ended, and a
// SYN that waits for an answer from there waits on when it is sent again, and so does, for two minutes, another client's
// that gets the same port. Flows of TCP without an answer are deleted then, by Run.

// endless reports whether clients of the protocol do not notice that their endpoint is gone.
func endless(p model.Protocol) bool { return p == model.UDP || p == model.SCTP }

// leavesFlows reports whether a change of a Service can leave flows behind that lead nowhere: an endpoint is gone, the
// first one has come, or an address has become a frontend, to which flows went untranslated.
func leavesFlows(c model.ServiceChange) bool {
	if c.New == nil || !c.New.Proxied {
		return false
	}
	var old model.Service
	if c.Old != nil && c.Old.Proxied {
		old = *c.Old
	}
	sameSlices := slices.Equal(old.Slices, c.New.Slices)
	for _, f := range c.New.Frontends {
		switch {
		case !endless(f.Protocol):
		case !slices.Contains(old.Frontends, f):
			return true
		case sameSlices:
		case left(serving(&old, f), serving(c.New, f)):
			return true
		}
	}
	return false
}

func left(before, after map[netip.AddrPort]bool) bool {
	if len(before) == 0 && len(after) > 0 {
		return true
	}
	for a := range before {
		if !after[a] {
			return true
		}
	}
	return false
}

// serving are the endpoints of a frontend that take packets, on whichever node, terminating or not.
func serving(s *model.Service, f model.Frontend) map[netip.AddrPort]bool {
	out := map[netip.AddrPort]bool{}
	for b := range s.Backends(f.PortName, f.Protocol) {
		if (b.Ready || b.Serving) && b.Addr.Addr().Is6() == f.Addr.Addr().Is6() {
			out[b.Addr] = true
		}
	}
	return out
}

// destination is what a flow was sent to.
type destination struct {
	protocol model.Protocol
	addr     netip.AddrPort
}

// noteFlows remembers the Services of which flows have to be deleted once they are programmed. Of what a previous
// process has left nobody knows what has changed since, so the first time it is all that have such flows.
func (a *Applier) noteFlows(next *model.Snapshot) {
	if a.conntrack == nil || !next.Complete {
		return
	}
	for _, c := range model.Diff(a.tracked, next).Services {
		if leavesFlows(c) {
			a.stale[c.Name] = true
		}
		a.noteUnanswered(c, next.Node)
	}
	a.tracked = next
}

// deleteFlows deletes the flows of the Services that were noted, except those which could not be programmed: they
// would come again. Conntrack is listed once for each protocol and family, however many Services there are.
func (r *round) deleteFlows() {
	if len(r.stale) == 0 {
		return
	}
	live := map[destination]map[netip.AddrPort]bool{}
	var done []model.ServiceName
	for n := range r.stale {
		if r.failed[n] != nil {
			continue
		}
		done = append(done, n)
		if s := r.next.Service(n); s != nil && s.Proxied && !r.except[n] {
			r.addDestinations(live, s)
		}
	}
	start := time.Now()
	deleted, err := r.deleteStale(live)
	r.metrics.flows.Observe(time.Since(start).Seconds())
	if err != nil {
		r.cfg.Log.Warn("flows to endpoints that are gone may be left until the next change", "namespace", r.cfg.Netns.String(), "error", err)
		return
	}
	for _, n := range done {
		delete(r.stale, n)
	}
	if deleted > 0 {
		r.cfg.Log.Debug("deleted flows to endpoints that are gone", "namespace", r.cfg.Netns.String(), "flows", deleted)
	}
}

// addDestinations adds the frontends of a Service with what serves them.
func (r *round) addDestinations(live map[destination]map[netip.AddrPort]bool, s *model.Service) {
	for _, f := range s.Frontends {
		if !endless(f.Protocol) {
			continue
		}
		endpoints := serving(s, f)
		for d := range destinations(f, r.next.Node) {
			live[d] = endpoints
		}
	}
}

// destinations are what clients send to that want a frontend: of a NodePort, any address of the node that has it.
func destinations(f model.Frontend, node *model.Node) iter.Seq[destination] {
	addrs := []netip.Addr{f.Addr.Addr()}
	if f.Kind == model.NodePort {
		addrs = append(addrs, node.NodePortAddrs(f.Addr.Addr().Is6())...)
	}
	return func(yield func(destination) bool) {
		for _, a := range addrs {
			if !yield(destination{f.Protocol, netip.AddrPortFrom(a, f.Addr.Port())}) {
				return
			}
		}
	}
}

func (r *round) deleteStale(live map[destination]map[netip.AddrPort]bool) (deleted int, err error) {
	type kind struct {
		family   nfnl.Family
		protocol model.Protocol
	}
	kinds := map[kind]bool{}
	for d := range live {
		kinds[kind{nfnl.FamilyOf(d.addr.Addr()), d.protocol}] = true
	}
	var stale []nfnl.Flow
	var errs []error
	for k := range kinds {
		errs = append(errs, r.conntrack.Flows(k.family, uint8(k.protocol), func(flow nfnl.Flow) {
			endpoints, ours := live[destination{k.protocol, flow.Dst}]
			if ours && !endpoints[flow.ReplySrc] {
				stale = append(stale, flow)
			}
		}))
	}
	for _, flow := range stale {
		errs = append(errs, r.conntrack.DeleteFlow(flow))
		r.metrics.deleted.WithLabelValues(familyLabel(flow.Family)).Inc()
	}
	return len(stale), errors.Join(errs...)
}
