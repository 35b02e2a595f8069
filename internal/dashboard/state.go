package dashboard

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// The most that one State holds. A cluster of 10,000 Services is searched, not scrolled.
const (
	MaxServices = 200
	MaxBackends = 100 // of one Service
)

// State is what the page shows: what is wanted, and what every node has made of it.
type State struct {
	Instance string      `json:"instance"`
	Revision uint64      `json:"revision"`
	Total    int         `json:"total"`    // Services there are
	Matching int         `json:"matching"` // of them, those with the text; at most MaxServices are listed
	Services []Service   `json:"services"`
	Nodes    []Node      `json:"nodes"`
	Cluster  []Component `json:"cluster"` // what belongs to no node
}

// Service is one Service with the addresses it has and the endpoints behind them.
type Service struct {
	Namespace    string     `json:"namespace"`
	Name         string     `json:"name"`
	Type         string     `json:"type"`
	Selector     string     `json:"selector,omitempty"`
	ExternalName string     `json:"externalName,omitempty"`
	Ports        []string   `json:"ports"` // "80/tcp"
	Frontends    []Frontend `json:"frontends"`
	Backends     []Backend  `json:"backends"`
	More         int        `json:"more,omitempty"` // backends that are not listed
	Own          bool       `json:"own,omitempty"`  // every node answers by itself, without endpoints
	Problems     []string   `json:"problems,omitempty"`
}

// Frontend is an address at which a Service answers.
type Frontend struct {
	Addr     netip.AddrPort `json:"addr"`
	Protocol string         `json:"protocol"`
	Kind     string         `json:"kind"`
}

// Backend is one endpoint, with all its ports.
type Backend struct {
	Addr  netip.Addr `json:"addr"`
	Ports []uint16   `json:"ports"`
	Pod   string     `json:"pod,omitempty"` // "namespace/name"
	Node  string     `json:"node,omitempty"`
	State string     `json:"state"` // "ready", "terminating" or "not ready"
}

// Node is a node and what its components have reached.
type Node struct {
	Name       string       `json:"name"`
	Addrs      []netip.Addr `json:"addrs"`
	Ready      bool         `json:"ready"`
	Components []Component  `json:"components"`
}

// Component is how far a component is. It is behind while Applied is not Seen, and fails while there is an Error.
type Component struct {
	Name    string `json:"name"`
	Applied uint64 `json:"applied"`
	Seen    uint64 `json:"seen"`
	Error   string `json:"error,omitempty"`
	Since   int64  `json:"since"` // Unix seconds
}

// Take reads a snapshot and the status. It lists Services whose namespace, name, address or selector has the text.
func (c Config) Take(text string) State {
	s, entries := c.Source.Current(), c.Board.Entries()
	out := State{Instance: c.Instance, Revision: s.Revision, Total: s.Len(), Services: []Service{}, Nodes: []Node{}, Cluster: []Component{}}
	lost := map[model.ServiceName][]string{}
	for _, c := range s.Conflicts() {
		lost[c.Loser] = append(lost[c.Loser], c.Addr.String()+"/"+c.Protocol.String()+" is Service "+c.Winner.String()+"'s, which is older")
	}
	for svc := range s.Services() {
		if !matches(svc, text) {
			continue
		}
		if out.Matching++; out.Matching <= MaxServices {
			out.Services = append(out.Services, c.service(svc, lost[svc.Name]))
		}
	}
	of := map[string][]Component{}
	for _, e := range entries {
		of[e.Node] = append(of[e.Node], Component{e.Component, e.Applied, e.Seen, e.Error, e.Since.Unix()})
	}
	out.Cluster = append(out.Cluster, of[""]...)
	for n := range s.Nodes() {
		out.Nodes = append(out.Nodes, Node{n.Name, n.Addrs, n.Ready, append([]Component{}, of[n.Name]...)})
	}
	slices.SortFunc(out.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func matches(s *model.Service, text string) bool {
	has := func(of string) bool { return strings.Contains(of, text) }
	return text == "" || has(s.Name.String()) || has(s.Selector) ||
		slices.ContainsFunc(s.Frontends, func(f model.Frontend) bool { return has(f.Addr.String()) })
}

func (c Config) service(s *model.Service, lost []string) Service {
	out := Service{Namespace: s.Name.Namespace, Name: s.Name.Name, Type: s.Type.String(), Selector: s.Selector, ExternalName: s.ExternalName,
		Ports: []string{}, Frontends: []Frontend{}, Backends: []Backend{}, Own: c.Own[s.Name], Problems: append(slices.Clone(s.Warnings), lost...)}
	if s.Headless {
		out.Type = "headless"
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	for _, f := range s.Frontends {
		out.Frontends = append(out.Frontends, Frontend{f.Addr, f.Protocol.String(), f.Kind.String()})
	}
	at := map[netip.Addr]int{}
	for b := range s.AllBackends() {
		i, listed := at[b.Addr.Addr()]
		if !listed {
			i = len(at)
			at[b.Addr.Addr()] = i
			if i < MaxBackends {
				out.Backends = append(out.Backends, Backend{Addr: b.Addr.Addr(), Ports: []uint16{}, Pod: b.Target, Node: b.NodeName, State: state(b)})
			}
		}
		if i < MaxBackends && b.Addr.Port() != 0 && !slices.Contains(out.Backends[i].Ports, b.Addr.Port()) {
			out.Backends[i].Ports = append(out.Backends[i].Ports, b.Addr.Port())
		}
	}
	out.More = max(0, len(at)-MaxBackends)
	if len(at) == 0 && !out.Own && s.Type != model.TypeExternalName {
		out.Problems = append(out.Problems, "no endpoints")
	}
	return out
}

func state(b *model.Backend) string {
	switch {
	case b.Terminating:
		return "terminating"
	case b.Ready:
		return "ready"
	}
	return "not ready"
}
