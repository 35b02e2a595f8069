package show

import (
	"net/netip"
	"strconv"

	"minato/internal/announce"
	"minato/internal/ingress"
	"minato/internal/ipam"
	"minato/internal/model"
)

// Service is a row of services.
type Service struct {
	Service               string       `json:"service"` // "namespace/name", as everywhere below
	Type                  string       `json:"type"`
	Headless              bool         `json:"headless,omitempty"`
	ExternalName          string       `json:"externalName,omitempty"`
	ClusterIPs            []netip.Addr `json:"clusterIPs,omitempty"`
	Selector              string       `json:"selector,omitempty"`
	Ports                 []Port       `json:"ports,omitempty"`
	Backends              []Backend    `json:"backends"`
	InternalTrafficPolicy string       `json:"internalTrafficPolicy"`
	ExternalTrafficPolicy string       `json:"externalTrafficPolicy"`
	AffinitySeconds       int          `json:"affinitySeconds,omitempty"`
	Warnings              []string     `json:"warnings,omitempty"`
}

// Port is a port of a Service.
type Port struct {
	Name       string `json:"name,omitempty"`
	Port       uint16 `json:"port"`
	Protocol   string `json:"protocol"`
	TargetPort string `json:"targetPort,omitempty"`
	NodePort   uint16 `json:"nodePort,omitempty"`
}

// Backend is an address and port of an endpoint.
type Backend struct {
	Address     netip.AddrPort `json:"address"` // port 0: a headless Service without ports
	Port        string         `json:"port,omitempty"`
	Pod         string         `json:"pod,omitempty"`
	Node        string         `json:"node,omitempty"`
	Ready       bool           `json:"ready"`
	Serving     bool           `json:"serving"`
	Terminating bool           `json:"terminating"`
}

// Frontend is a row of frontends: an address at which the node answers clients from outside.
type Frontend struct {
	Address  netip.AddrPort   `json:"address"` // of a NodePort: every address of the node that takes them
	Protocol string           `json:"protocol"`
	Kind     string           `json:"kind"`
	Service  string           `json:"service"`
	Port     string           `json:"port,omitempty"`
	Verdict  string           `json:"verdict"`
	Backends []netip.AddrPort `json:"backends"`
}

// Addresses is the view of that name.
type Addresses struct {
	Origin   string    `json:"origin,omitempty"`  // of the pools
	Nothing  string    `json:"nothing,omitempty"` // why no address is given at all
	Services []Address `json:"services"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Address is what one Service gets.
type Address struct {
	Service   string       `json:"service"`
	Addresses []netip.Addr `json:"addresses"`
	Pool      string       `json:"pool,omitempty"`
	Dropped   string       `json:"dropped,omitempty"`
	Problem   string       `json:"problem,omitempty"`
}

// Announcement is a row of announcements.
type Announcement struct {
	Address  netip.Addr        `json:"address"`
	Node     string            `json:"node,omitempty"`
	Pool     string            `json:"pool,omitempty"`
	Services []string          `json:"services"`
	Why      string            `json:"why,omitempty"` // nobody announces it
	NotBy    map[string]string `json:"notBy,omitempty"`
}

// Routes is the view of that name.
type Routes struct {
	Hosts    []Host `json:"hosts"`
	Backends []Pool `json:"backends"`
}

// Host is the routes of one host; an empty Host is any.
type Host struct {
	Host   string  `json:"host"`
	Secret string  `json:"secret,omitempty"`
	Routes []Route `json:"routes"`
}

// Route is where one path goes.
type Route struct {
	Path    string `json:"path"`
	Type    string `json:"type"`
	Service string `json:"service"`
	Port    string `json:"port"`
	Ingress string `json:"ingress"`
}

// Pool is the backends of a Service's port, as Ingress uses it.
type Pool struct {
	Service  string           `json:"service"`
	Port     string           `json:"port"`
	Problem  string           `json:"problem,omitempty"`
	Backends []netip.AddrPort `json:"backends"`
}

// Rule is a row of nftables: a frontend in one scope, and what becomes of connections to it.
type Rule struct {
	Service    string           `json:"service"`
	Address    netip.AddrPort   `json:"address"`
	Protocol   string           `json:"protocol"`
	Scope      string           `json:"scope"`
	Kind       string           `json:"kind"`
	Verdict    string           `json:"verdict"`
	Affinity   int              `json:"affinitySeconds,omitempty"`
	Masquerade bool             `json:"masquerade,omitempty"`
	Sources    []netip.Prefix   `json:"sources,omitempty"`
	Endpoints  []netip.AddrPort `json:"endpoints"`
	Kernel     []string         `json:"kernel,omitempty"` // in what the node's kernel differs
}

func services(s *model.Snapshot) []Service {
	out := []Service{}
	for svc := range s.Services() {
		r := Service{
			Service: svc.Name.String(), Type: svc.Type.String(), Headless: svc.Headless, ExternalName: svc.ExternalName, ClusterIPs: svc.ClusterIPs,
			Selector: svc.Selector, Backends: []Backend{}, Warnings: svc.Warnings, AffinitySeconds: int(svc.SessionAffinity.Seconds()),
			InternalTrafficPolicy: svc.InternalTrafficPolicy.String(), ExternalTrafficPolicy: svc.ExternalTrafficPolicy.String(),
		}
		for _, p := range svc.Ports {
			r.Ports = append(r.Ports, Port{p.Name, p.Port, p.Protocol.String(), p.TargetPort, p.NodePort})
		}
		for b := range svc.AllBackends() {
			r.Backends = append(r.Backends, Backend{b.Addr, b.PortName, b.Target, b.NodeName, b.Ready, b.Serving, b.Terminating})
		}
		out = append(out, r)
	}
	return out
}

func frontends(s *model.Snapshot, only model.ServiceName) []Frontend {
	out := []Frontend{}
	for svc := range s.Services() {
		if (only != model.ServiceName{}) && svc.Name != only {
			continue
		}
		for _, f := range svc.Frontends {
			sel := model.Select(svc, f, s.Node, model.Outside)
			r := Frontend{f.Addr, f.Protocol.String(), f.Kind.String(), svc.Name.String(), f.PortName, sel.Verdict.String(), []netip.AddrPort{}}
			for _, b := range sel.Backends {
				r.Backends = append(r.Backends, b.Addr)
			}
			out = append(out, r)
		}
	}
	return out
}

func decisions(origin string, p *ipam.Plan) Addresses {
	out := Addresses{Origin: origin, Services: []Address{}, Warnings: p.Warnings}
	for _, d := range p.Decisions {
		out.Services = append(out.Services, Address{d.Service.String(), append([]netip.Addr{}, d.Addrs...), d.Pool, d.Dropped, d.Problem})
	}
	return out
}

func announcements(list []*announce.Announcement) []Announcement {
	out := []Announcement{}
	for _, a := range list {
		r := Announcement{Address: a.Addr, Node: a.Node, Pool: a.Pool, Services: []string{}}
		for _, s := range a.Services {
			r.Services = append(r.Services, s.String())
		}
		if a.Why != 0 {
			r.Why = a.Why.String()
		}
		for _, l := range a.LeftOut {
			if r.NotBy == nil {
				r.NotBy = map[string]string{}
			}
			r.NotBy[l.Node] = l.Reason.String()
		}
		out = append(out, r)
	}
	return out
}

func portOf(n ingress.PoolName) string {
	if n.PortName != "" {
		return n.PortName
	}
	return strconv.Itoa(int(n.Port))
}

func routes(p *ingress.Plan, only model.ServiceName) Routes {
	out := Routes{Hosts: []Host{}, Backends: []Pool{}}
	wanted := func(n ingress.PoolName) bool { return only == model.ServiceName{} || n.Service == only }
	for _, h := range p.Hosts() {
		host := Host{Host: h.Name, Routes: []Route{}}
		if h.TLS != nil {
			host.Secret = h.TLS.Secret
		}
		for _, r := range h.Routes() {
			if !wanted(r.Pool) {
				continue
			}
			row := Route{r.Path, r.Type.String(), r.Pool.Service.String(), portOf(r.Pool), r.Ingress.String()}
			if r.Path == "" {
				row.Path = "/"
			}
			if r.Default {
				row.Type = "default"
			}
			host.Routes = append(host.Routes, row)
		}
		if len(host.Routes) > 0 || wanted(ingress.PoolName{}) {
			out.Hosts = append(out.Hosts, host)
		}
	}
	for _, pool := range p.Pools() {
		if !wanted(pool.Name) {
			continue
		}
		row := Pool{pool.Name.Service.String(), portOf(pool.Name), pool.Problem, []netip.AddrPort{}}
		for _, b := range pool.Backends {
			row.Backends = append(row.Backends, b.Addr)
		}
		out.Backends = append(out.Backends, row)
	}
	return out
}
