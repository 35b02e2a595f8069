package explain

import (
	"net/netip"
	"slices"

	"minato/internal/model"
)

// miss ends a connection to an address and port at which no Service answers.
func (t *trace) miss() {
	a := t.r.Addr
	for _, c := range t.Snapshot.Conflicts() {
		if c.Addr == a {
			t.notef("Service %s wants this address too, and %s is older", c.Loser, c.Winner)
		}
	}
	if s := t.owner(a.Addr()); s != nil && t.missOf(s) {
		return
	}
	if n := t.Snapshot.LocalNode(a.Addr()); n != nil {
		t.missNode(n)
		return
	}
	if t.toPod(a) {
		return
	}
	if slices.ContainsFunc(t.ServiceCIDRs, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
		t.end(Dropped, "no Service has the address %s", a.Addr())
		t.advise("`minato show services` lists those there are; a Service that was made anew has a new address, its name stays")
		return
	}
	t.outside()
}

// missOf ends at the address of a Service that has no such port. It is false for an externalIP, whose other ports are
// left alone.
func (t *trace) missOf(s *model.Service) bool {
	a := t.r.Addr
	switch {
	case !s.Proxied:
		t.r.Service = s.Name.String()
		t.end(Dropped, "Service %s has the label service.kubernetes.io/service-proxy-name: it is left to another proxy", s.Name)
	case slices.Contains(s.ClusterIPs, a.Addr()) && t.r.From.Kind == fromLAN:
		t.r.Service = s.Name.String()
		t.end(Dropped, "%s is a ClusterIP: only pods and nodes of the cluster have a way to it", a.Addr())
		t.adviseOutside(s)
	case slices.Contains(s.ClusterIPs, a.Addr()):
		t.r.Service = s.Name.String()
		t.end(Refused, "Service %s has no port %d/%s", s.Name, a.Port(), t.r.Protocol)
		t.advise("its ports are %s", portList(s))
		t.adviseTarget(s, a.Port())
	case slices.ContainsFunc(s.Frontends, func(f model.Frontend) bool { return f.Kind == model.LoadBalancer && f.Addr.Addr() == a.Addr() }):
		t.r.Service = s.Name.String()
		t.end(Dropped, "Service %s has no port %d/%s at its load balancer address", s.Name, a.Port(), t.r.Protocol)
		t.advise("its ports are %s", portList(s))
	default:
		return false
	}
	return true
}

// adviseTarget catches the usual mistakes: another protocol, the port of the pods instead of that of the Service.
func (t *trace) adviseTarget(s *model.Service, port uint16) {
	for _, p := range s.Ports {
		if p.Port == port {
			t.advise("it has %d/%s: --protocol %s asks for that", p.Port, p.Protocol, p.Protocol)
			return
		}
	}
	for b := range s.AllBackends() {
		if b.Addr.Port() == port {
			for _, p := range s.Ports {
				if p.Name == b.PortName {
					t.advise("%d is the pods' port (targetPort): the Service's is %d", port, p.Port)
				}
			}
			return
		}
	}
}

func (t *trace) missNode(n *model.Node) {
	a := t.r.Addr
	t.r.Node = n.Name
	t.end(Refused, "no Service has NodePort %d/%s: %s itself refuses, unless a program on it listens there", a.Port(), t.r.Protocol, n.Name)
	for s := range t.Snapshot.Services() {
		for _, p := range s.Ports {
			if p.NodePort != 0 && (p.Port == a.Port() || p.NodePort == a.Port()) {
				t.advise("Service %s has port %d and NodePort %d/%s", s.Name, p.Port, p.NodePort, p.Protocol)
			}
		}
	}
}

// toPod ends at a pod's own address, where no Service is in between.
func (t *trace) toPod(a netip.AddrPort) bool {
	b := t.backend(func(b *model.Backend) bool { return b.Addr.Addr() == a.Addr() })
	known := b != nil
	if !known {
		b = &model.Backend{Addr: a, Ready: true, Serving: true}
		for n := range t.Snapshot.Nodes() {
			if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
				b.NodeName, known = n.Name, true
			}
		}
	}
	switch {
	case !known:
		return false
	case t.r.From.Kind == fromLAN:
		t.end(Dropped, "%s is a pod's address: only pods and nodes of the cluster have a way to it", a.Addr())
		return true
	}
	t.direct(a, b)
	t.even()
	t.end(Delivered, "%s is a pod's own address: no Service is in between", a.Addr())
	return true
}

func (t *trace) outside() {
	t.end(Delivered, "%s is outside the cluster: no Service has it", t.r.Addr.Addr())
	if n := t.Snapshot.NodeNamed(t.r.From.Node); n != nil {
		t.notef("it leaves with the address %s of %s", n.Addr(t.r.Addr.Addr().Is6()), n.Name)
	}
}
