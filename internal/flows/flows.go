// Package flows says of connections that a node tracks which Service they are of, where they go, and why there.
//
// It is pure: a snapshot and what connection tracking says of one connection to a Flow. The reason is what explain
// gives for a new connection of that client today; where the backend would not be chosen any more, it says so, because
// a connection keeps its backend until it ends.
//
// It reads no kernel: package nfnl does, and what belongs to no Service is left out.
package flows

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// Tracked is what connection tracking says of a connection.
type Tracked struct {
	Protocol    model.Protocol
	Client, To  netip.AddrPort // of the first packet
	Backend     netip.AddrPort // from where replies come
	SeenAs      netip.AddrPort // whom the backend takes for the client
	State       string
	LeftSeconds int
}

// Flow is a connection to a Service. Its JSON is the output of `minato flows -o json`.
type Flow struct {
	Event       string         `json:"event,omitempty"` // of a watch: new or end
	Node        string         `json:"node"`            // that tracks and translates it
	Protocol    string         `json:"protocol"`
	Client      netip.AddrPort `json:"client"`
	ClientPod   string         `json:"clientPod,omitempty"` // namespace/name, where it is one
	Service     string         `json:"service"`
	Kind        string         `json:"kind"` // of the frontend
	Frontend    netip.AddrPort `json:"frontend"`
	Backend     netip.AddrPort `json:"backend,omitzero"` // absent where nothing is translated
	BackendPod  string         `json:"backendPod,omitempty"`
	BackendNode string         `json:"backendNode,omitempty"`
	SeenAs      netip.Addr     `json:"seenAs"` // the client's address as the backend sees it
	State       string         `json:"state"`
	LeftSeconds int            `json:"leftSeconds"` // until the kernel forgets it, if no packet comes
	Reason      string         `json:"reason"`
}

// Index finds Services by what their connections look like. It is for one snapshot and one goroutine: what was chosen
// once is remembered.
type Index struct {
	except    map[model.ServiceName]bool
	frontends map[address]frontend
	pods      map[netip.Addr]string
	backends  map[netip.Addr]*model.Backend // of pods
	chosen    map[selection]*choice
}

type address struct {
	addr     netip.AddrPort // unspecified: a NodePort
	protocol model.Protocol
}

type frontend struct {
	service *model.Service
	model.Frontend
}

type selection struct {
	service *model.Service
	model.Frontend
	node  string
	scope model.Scope
}

type choice struct {
	reason   string
	backends map[netip.AddrPort]bool
	left     map[netip.AddrPort]model.Reason
}

// New indexes the Services of a snapshot; only, if it is not the zero name, is the one Service that is asked for. At
// the addresses of those in except nodes answer themselves. Of pods the names of clients are taken, "namespace/name".
func New(s *model.Snapshot, only model.ServiceName, except map[model.ServiceName]bool, pods map[netip.Addr]string) *Index {
	x := &Index{except: except, frontends: map[address]frontend{}, pods: pods, backends: map[netip.Addr]*model.Backend{}, chosen: map[selection]*choice{}}
	for svc := range s.Services() {
		for b := range svc.AllBackends() {
			if b.Target != "" && x.backends[b.Addr.Addr()] == nil {
				x.backends[b.Addr.Addr()] = b
			}
		}
		if only != (model.ServiceName{}) && svc.Name != only {
			continue
		}
		for _, f := range svc.Frontends {
			x.frontends[address{f.Addr, f.Protocol}] = frontend{svc, f}
		}
	}
	return x
}

// Of says what a connection is that a node tracks; ok is false when it is of no Service, or of another one than asked
// for.
func (x *Index) Of(n *model.Node, t Tracked) (flow Flow, ok bool) {
	f, ok := x.frontends[address{t.To, t.Protocol}]
	if !ok && slices.Contains(n.Addrs, t.To.Addr()) {
		any := netip.IPv4Unspecified()
		if t.To.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		f, ok = x.frontends[address{netip.AddrPortFrom(any, t.To.Port()), t.Protocol}]
	}
	if !ok {
		return Flow{}, false
	}
	flow = Flow{
		Node: n.Name, Protocol: t.Protocol.String(), Client: t.Client, Service: f.service.Name.String(), Kind: f.Kind.String(),
		Frontend: t.To, SeenAs: t.SeenAs.Addr(), State: t.State, LeftSeconds: t.LeftSeconds,
	}
	flow.ClientPod = x.pods[t.Client.Addr()]
	switch {
	case t.Backend == t.To && x.except[f.service.Name]:
		flow.Reason = n.Name + " itself answers"
		return flow, true
	case t.Backend == t.To:
		flow.Reason = "not translated: it is older than the Service, or its node had not programmed it"
		return flow, true
	}
	flow.Backend = t.Backend
	scope := model.Outside
	if n.IsLocal(t.Client.Addr()) {
		scope = model.Inside
	}
	if b := x.backends[t.Backend.Addr()]; b != nil {
		flow.BackendPod, flow.BackendNode = b.Target, b.NodeName
	}
	flow.Reason = x.reason(f, n, scope, t)
	return flow, true
}

// reason is why the connection goes to its backend.
func (x *Index) reason(f frontend, n *model.Node, scope model.Scope, t Tracked) string {
	key := selection{f.service, f.Frontend, n.Name, scope}
	c := x.chosen[key]
	if c == nil {
		c = choose(f, n, scope)
		x.chosen[key] = c
	}
	switch why, left := c.left[t.Backend]; {
	case c.backends[t.Backend]:
		return c.reason
	case left:
		return "kept from before: its backend is " + why.String()
	}
	return "kept from before: its backend is no endpoint any more"
}

func choose(f frontend, n *model.Node, scope model.Scope) *choice {
	sel := model.Select(f.service, f.Frontend, n, scope)
	c := &choice{backends: map[netip.AddrPort]bool{}, left: map[netip.AddrPort]model.Reason{}}
	for _, b := range sel.Backends {
		c.backends[b.Addr] = true
	}
	for _, l := range sel.LeftOut {
		if l.Reason != model.Duplicate {
			c.left[l.Backend.Addr] = l.Reason
		}
	}
	parts := []string{fmt.Sprintf("%s, policy %s, 1 of %d", scope, sel.Policy, len(sel.Backends))}
	if f.service.SessionAffinity > 0 {
		parts = append(parts, "session affinity "+f.service.SessionAffinity.String())
	}
	if sel.Fallback {
		parts = append(parts, "none ready, so terminating ones serve")
	}
	c.reason = strings.Join(parts, "; ")
	return c
}
