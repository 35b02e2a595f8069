package explain

import (
	"net/netip"
	"slices"

	"minato/internal/model"
)

// miss ends a connection to an address and port at which no Service answers.
func (t *trace) miss() {
	a := t.r.Addr
	if s := t.owner(a.Addr()); s != nil && t.missOf(s) {
		return
	}
	if a.Addr().IsLoopback() {
		t.end(Refused, "%s is never anybody but the client itself, which refuses, unless a program of its own listens there", a.Addr())
		t.adviseNodePorts(a.Port())
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
		if t.r.From.Kind == fromLAN {
			t.noWay("in the range of ClusterIPs, though no Service has it")
		}
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
		t.advise("take the label away, and minato serves it")
	case slices.Contains(s.ClusterIPs, a.Addr()) && t.r.From.Kind == fromLAN:
		t.r.Service = s.Name.String()
		t.noWay("a ClusterIP")
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
	if t.proxied(a.Port()) {
		t.end(Delivered, "the Ingress proxy of %s answers at its ports 80 and 443", n.Name)
		t.http()
		return
	}
	t.end(Refused, "no Service has NodePort %d/%s: %s itself refuses, unless a program on it listens there", a.Port(), t.r.Protocol, n.Name)
	t.adviseNodePorts(a.Port())
	if len(t.r.Advice) == 0 {
		t.advise("`minato show frontends` lists the addresses and NodePorts at which Services answer")
	}
}

// adviseNodePorts names the Services that have a port, at another address.
func (t *trace) adviseNodePorts(port uint16) {
	for s := range t.Snapshot.Services() {
		for _, p := range s.Ports {
			if p.NodePort != 0 && (p.Port == port || p.NodePort == port) {
				t.advise("Service %s has port %d and NodePort %d/%s", s.Name, p.Port, p.NodePort, p.Protocol)
			}
		}
	}
}

// toPod ends at a pod's own address, where no Service is in between. It is false for an address of no pod.
func (t *trace) toPod(a netip.AddrPort) bool {
	node := t.nodeOfPods(a.Addr())
	b := t.backend(func(b *model.Backend) bool { return b.Addr.Addr() == a.Addr() })
	if b == nil {
		b = t.podBehindNothing(a, node)
	}
	switch {
	case b == nil && node == nil:
		return false
	case b == nil:
		t.end(Refused, "no pod has the address %s: %s, which has the range, says unreachable", a.Addr(), node.Name)
		t.advise("a pod that was made anew has a new address: connect to a Service, whose address stays")
		return true
	case t.r.From.Kind == fromLAN && node == nil:
		return false // of a backend outside the cluster
	case t.r.From.Kind == fromLAN:
		t.noWay("a pod's address")
		t.advise("put a Service of `type: NodePort` or `type: LoadBalancer` before the pod, or `minato kubectl port-forward`")
		return true
	}
	t.direct(a, b)
	t.even()
	t.end(Delivered, "%s is a pod's own address: no Service is in between", a.Addr())
	return true
}

// nodeOfPods is the node whose pods have addresses such as a, nil for an address outside.
func (t *trace) nodeOfPods(a netip.Addr) *model.Node {
	for n := range t.Snapshot.Nodes() {
		if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n
		}
	}
	return nil
}

// podBehindNothing is a pod that no Service has among its backends. Where the API cannot be asked any address of the
// node's range is taken for one.
func (t *trace) podBehindNothing(a netip.AddrPort, node *model.Node) *model.Backend {
	b := &model.Backend{Addr: a, Ready: true, Serving: true}
	switch {
	case node == nil:
		return nil
	case t.Pods == nil:
		b.NodeName = node.Name
		return b
	}
	p, ok := t.Pods.At(a.Addr())
	if !ok {
		return nil
	}
	b.NodeName, b.Target = p.Node, p.Namespace+"/"+p.Name
	return b
}

// outside ends at an address that is none of the cluster's, to which there is no way without an address of its family.
func (t *trace) outside() {
	a := t.r.Addr.Addr()
	n := t.Snapshot.NodeNamed(t.r.From.Node)
	if n != nil && !n.Addr(a.Is6()).IsValid() {
		t.end(Refused, "%s is outside the cluster, and %s has no address of %s to go there: the network is unreachable", a, n.Name, familyOf(a))
		return
	}
	t.end(Delivered, "%s is outside the cluster: no Service has it", a)
	if n != nil {
		t.notef("it leaves with the address %s of %s", n.Addr(a.Is6()), n.Name)
	}
}
