package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/announce"
	"minato/internal/model"
)

// forward goes through a frontend of a Service.
func (t *trace) forward(s *model.Service, f model.Frontend) {
	t.r.Service, t.r.Kind, t.r.Port = s.Name.String(), f.Kind.String(), f.PortName
	if f.Kind == model.ClusterIP && t.r.From.Kind == fromLAN {
		t.noWay("a ClusterIP")
		t.adviseOutside(s)
		return
	}
	if t.Except[s.Name] && t.r.From.Node != "" {
		t.r.Node = t.r.From.Node
		t.end(Delivered, "%s itself answers at this address, nothing is translated", t.r.From.Node)
		return
	}
	n := t.node(s, f)
	if n == nil {
		if t.r.Verdict == "" {
			t.end(Dropped, "no node is known that would answer at %s", t.r.Addr)
			t.advise("`minato node list` shows the nodes there are")
		}
		return
	}
	scope := model.Outside
	if t.r.From.Node == n.Name {
		scope = model.Inside
	}
	t.r.Node, t.r.Scope = n.Name, scope.String()
	if !t.allowed(s, f) {
		return
	}
	t.choose(s, f, n, scope)
	t.compare(s, f, n, scope)
	t.targetPort(s, f)
	if s.Name == t.Front {
		t.http()
	}
}

// choose takes the backends, as every node does it for itself.
func (t *trace) choose(s *model.Service, f model.Frontend, n *model.Node, scope model.Scope) {
	sel := model.Select(s, f, n, scope)
	t.r.Policy = sel.Policy.String()
	for _, b := range sel.Backends {
		c := choice(b.Addr, b)
		c.Source, c.SourceWhy = t.source(s, f, n, b.Addr.Addr())
		t.r.Backends = append(t.r.Backends, c)
	}
	t.even()
	for _, l := range sel.LeftOut {
		t.r.LeftOut = append(t.r.LeftOut, leftOut(l))
	}
	if sel.Fallback {
		t.notef("no backend is ready: those that terminate but still serve are used")
	}
	t.conclude(s, f, n, sel)
}

func (t *trace) conclude(s *model.Service, f model.Frontend, n *model.Node, sel model.Selection) {
	switch sel.Verdict {
	case model.Forward:
		t.r.Verdict = Delivered
	case model.Reject:
		t.end(Refused, "Service %s has no ready backend for port %d/%s", s.Name, t.r.Addr.Port(), f.Protocol)
		t.adviseBackends(s, &f)
	case model.Drop:
		field := "internalTrafficPolicy"
		if f.Kind.External() {
			field = "externalTrafficPolicy"
		}
		t.end(Dropped, "%s is Local, and no backend is on %s", field, n.Name)
		if where := nodesOf(sel.LeftOut); len(where) > 0 && f.Kind.External() {
			t.advise("connect to a node that has one: %s", strings.Join(where, ", "))
		}
		t.advise("set %s: Cluster, which uses the backends of all nodes", field)
	}
}

// node is the one that chooses the backend. Inside the cluster that is the origin's own, except for a NodePort at
// another node's address: the packet goes there as it is.
func (t *trace) node(s *model.Service, f model.Frontend) *model.Node {
	owner := t.Snapshot.LocalNode(t.r.Addr.Addr())
	if f.Kind == model.NodePort || owner != nil && t.r.From.Kind == fromLAN {
		return owner
	}
	if t.r.From.Node != "" {
		return t.Snapshot.NodeNamed(t.r.From.Node)
	}
	if f.Kind == model.LoadBalancer {
		if n, known := t.announcer(s, f); known {
			return n
		}
	}
	for n := range t.Snapshot.Nodes() {
		t.notef("which node gets packets for %s is not known here: this is as seen by %s", t.r.Addr.Addr(), n.Name)
		return n
	}
	return nil
}

// announcer is the node that answers on the LAN for a load balancer address, nil where nobody does. It is not known
// where somebody else announces the address.
func (t *trace) announcer(s *model.Service, f model.Frontend) (n *model.Node, known bool) {
	a := announce.New(t.Snapshot).Of(f.Addr.Addr())
	if a == nil || slices.Contains([]announce.Reason{announce.NoPool, announce.OtherWay, announce.Elsewhere}, a.Why) {
		return nil, false
	}
	if a.Node != "" {
		t.notef("%s announces %s on the LAN (pool %s)", a.Node, a.Addr, a.Pool)
		return t.Snapshot.NodeNamed(a.Node), true
	}
	for _, l := range model.Select(s, f, nil, model.Outside).LeftOut {
		t.r.LeftOut = append(t.r.LeftOut, leftOut(l))
	}
	if a.Why == announce.NoEndpoint {
		t.end(Dropped, "nobody announces %s on the LAN, because Service %s has no ready backend", a.Addr, s.Name)
		t.adviseBackends(s, &f)
		return nil, true
	}
	var reasons []string
	for _, l := range a.LeftOut {
		reasons = append(reasons, l.Node+": "+l.Reason.String())
	}
	t.end(Dropped, "nobody announces %s on the LAN: %s", a.Addr, cmp.Or(strings.Join(reasons, "; "), a.Why.String()))
	if s.ExternalTrafficPolicy == model.Local {
		t.advise("set externalTrafficPolicy: Cluster, which lets every node announce it that is ready")
	}
	t.advise("`minato show announcements` says of every address who announces it, and why not the others")
	return nil, true
}

// allowed applies loadBalancerSourceRanges, which hold for load balancer addresses only, whoever asks.
func (t *trace) allowed(s *model.Service, f model.Frontend) bool {
	if f.Kind != model.LoadBalancer {
		return true
	}
	ranges := slices.DeleteFunc(slices.Clone(s.SourceRanges), func(p netip.Prefix) bool { return p.Addr().Is6() != f.Addr.Addr().Is6() })
	if len(ranges) == 0 {
		return true
	}
	from := t.own(f.Addr.Addr().Is6())
	if !from.IsValid() {
		t.notef("spec.loadBalancerSourceRanges lets only %s in: --from ADDRESS says whether somebody is", join(ranges))
		return true
	}
	if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return true
	}
	t.end(Dropped, "spec.loadBalancerSourceRanges of Service %s lets only %s in, and %s is not in there", s.Name, join(ranges), from)
	t.advise("add %s to spec.loadBalancerSourceRanges", netip.PrefixFrom(from, from.BitLen()))
	return false
}

// own is the origin's address of a family, invalid when it is not known.
func (t *trace) own(ipv6 bool) netip.Addr {
	if t.r.From.Kind == fromNode {
		if n := t.Snapshot.NodeNamed(t.r.From.Node); n != nil {
			return n.Addr(ipv6)
		}
	}
	addrs := []netip.Addr{t.r.From.Addr}
	if t.r.From.Name == fromLAN {
		addrs = t.LAN
	}
	for _, a := range addrs {
		if a.IsValid() && a.Is6() == ipv6 {
			return a
		}
	}
	return netip.Addr{}
}

// source is the client address that a backend sees, and why: kube-proxy's masquerade rules.
func (t *trace) source(s *model.Service, f model.Frontend, n *model.Node, backend netip.Addr) (addr, why string) {
	o := t.r.From
	own := t.own(backend.Is6())
	node := n.Addr(backend.Is6()).String()
	switch {
	case o.Kind == fromNode && o.Node == n.Name:
		return node, "the node's own address"
	case slices.Contains(n.Addrs, backend):
		return o.address(own), "its own address: the backend is in the network of " + n.Name + " itself, through which replies leave anyway"
	case own.IsValid() && own == backend:
		return node, "masqueraded, since a pod that reaches itself through a Service must not see its own address come in"
	case f.Kind == model.ClusterIP && o.Node == n.Name:
		return o.address(own), "its own address"
	case f.Kind == model.ClusterIP:
		return node, "masqueraded, since the client is not on " + n.Name + ", and replies must come back through it"
	case s.ExternalTrafficPolicy == model.Cluster:
		return node, "masqueraded, since externalTrafficPolicy is Cluster, and replies must come back through " + n.Name
	}
	return o.address(own), "kept, since externalTrafficPolicy is Local"
}

// address is the origin's own address in words, where it is not known.
func (o Origin) address(own netip.Addr) string {
	switch {
	case own.IsValid():
		return own.String()
	case o.Kind == fromPod:
		return "the pod's own address"
	}
	return "the client's own address"
}

// noWay ends a connection from the LAN to an address that is reached from within the cluster only.
func (t *trace) noWay(what string) {
	a := t.r.Addr.Addr()
	verdict, how := Dropped, "nothing there answers"
	if i := slices.IndexFunc(t.Unrouted, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
		verdict, how = Refused, fmt.Sprintf("this machine's route to %s says unreachable", t.Unrouted[i])
	}
	t.end(verdict, "%s is %s: only pods and nodes of the cluster have a way to it, and %s", a, what, how)
}

// direct adds a backend that is reached without a frontend.
func (t *trace) direct(a netip.AddrPort, b *model.Backend) {
	c := choice(a, b)
	c.Source, c.SourceWhy = t.r.From.address(t.own(a.Addr().Is6())), "its own address, nothing is translated"
	t.r.Backends = append(t.r.Backends, c)
}

func (t *trace) even() {
	for i := range t.r.Backends {
		t.r.Backends[i].Probability = 1 / float64(len(t.r.Backends))
	}
}

func choice(a netip.AddrPort, b *model.Backend) Choice {
	return Choice{Addr: a, Pod: b.Target, Node: b.NodeName, Condition: b.Condition()}
}

func leftOut(l model.LeftOut) LeftOut {
	return LeftOut{Addr: l.Backend.Addr, Pod: l.Backend.Target, Node: l.Backend.NodeName, Reason: l.Reason.String()}
}

func nodesOf(left []model.LeftOut) []string {
	var names []string
	for _, l := range left {
		if l.Reason == model.OtherNode && l.Backend.Ready && !slices.Contains(names, l.Backend.NodeName) {
			names = append(names, l.Backend.NodeName)
		}
	}
	slices.Sort(names)
	return names
}
