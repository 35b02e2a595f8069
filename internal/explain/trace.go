package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/model"
)

// trace follows one connection.
type trace struct {
	World
	to destination
	r  Result
}

func (t *trace) run() error {
	switch {
	case t.to.service.Name != "":
		return t.service()
	case t.to.name != "":
		addr, ok := t.lookup()
		if !ok {
			return nil
		}
		return t.address(addr)
	default:
		return t.address(t.to.addr)
	}
}

func (t *trace) end(v Verdict, reason string, v2 ...any) {
	t.r.Verdict, t.r.Reason = v, fmt.Sprintf(reason, v2...)
}

func (t *trace) notef(format string, v ...any) {
	t.r.Notes = append(t.r.Notes, fmt.Sprintf(format, v...))
}

func (t *trace) advise(format string, v ...any) {
	t.r.Advice = append(t.r.Advice, fmt.Sprintf(format, v...))
}

// service starts from svc/NAME, without a look-up.
func (t *trace) service() error {
	s := t.Snapshot.Service(t.to.service)
	switch {
	case s == nil:
		t.end(NoSuchName, "there is no Service %s", t.to.service)
		t.suggest(t.to.service.Name + "." + t.to.service.Namespace + ".svc." + t.Zone.Domain)
		if len(t.r.Advice) == 0 {
			t.advise("`minato show services` lists those there are")
		}
	case s.Type == model.TypeExternalName:
		t.r.Service = s.Name.String()
		t.externalName(s)
	case s.Headless:
		t.r.Service = s.Name.String()
		t.headless(s)
	case len(s.ClusterIPs) == 0:
		t.end(NoSuchName, "Service %s has no address yet", s.Name)
		t.advise("`kubectl -n %s describe service %s` says what happened to it", s.Name.Namespace, s.Name.Name)
	default:
		return t.address(s.ClusterIPs[0])
	}
	return nil
}

// externalName says where an alias leads, or why it is none.
func (t *trace) externalName(s *model.Service) {
	if why, ok := dns.Explain(t.Snapshot, t.Zone, s.Name.Name+"."+s.Name.Namespace+".svc."+t.Zone.Domain); ok {
		t.end(NoSuchName, "%s", why.Text)
		t.r.Advice = append(t.r.Advice, why.Advice...)
		return
	}
	t.end(Delivered, "an ExternalName Service is only a name: it leads to %s", s.ExternalName)
}

// headless lists the pods that the name of a headless Service gives.
func (t *trace) headless(s *model.Service) {
	if t.r.From.Kind == fromLAN {
		t.end(Dropped, "a headless Service has only the addresses of its pods: only pods and nodes of the cluster have a way to them")
		t.advise("make a Service of `type: NodePort` or `type: LoadBalancer` with the same selector")
		return
	}
	seen := map[netip.Addr]bool{}
	for b := range s.AllBackends() {
		switch a := b.Addr.Addr(); {
		case seen[a]:
		case b.Ready:
			t.direct(b.Addr, b)
		default:
			l := leftOut(model.LeftOut{Backend: b, Reason: model.NotReady})
			if b.Terminating {
				l.Reason = "terminating: names give only what is ready"
			}
			t.r.LeftOut = append(t.r.LeftOut, l)
		}
		seen[b.Addr.Addr()] = true
	}
	t.even()
	if len(t.r.Backends) == 0 {
		t.end(NoSuchName, "Service %s is headless, and %s: its name gives no address", s.Name, readiness(len(seen)))
		t.adviseBackends(s, nil)
		if len(seen) > 0 && !s.PublishNotReady {
			t.advise("publishNotReadyAddresses: true gives names to pods before they are ready")
		}
		return
	}
	t.end(Delivered, "a headless Service has no address of its own: its name gives those of its pods, and ports are not translated")
}

func readiness(n int) string {
	if n == 0 {
		return "has no endpoint"
	}
	return "has " + plural(n, "endpoint") + ", none ready"
}

// address goes to one address. The port may still be a name, or not given.
func (t *trace) address(a netip.Addr) error {
	port, err := t.port(a)
	if err != nil {
		return err
	}
	a = t.loopback(a, port)
	t.r.Addr = netip.AddrPortFrom(a, port)
	if port == 0 {
		t.end(Delivered, "the name gives %s; with a port, as in %s:80, the connection is followed on", a, t.to.name)
		return nil
	}
	s, f, ok := t.frontend(t.r.Addr, t.to.protocol)
	if !ok && t.to.guessed {
		if s, f, ok = t.frontend(t.r.Addr, model.UDP); ok {
			t.to.protocol = model.UDP
			t.r.Protocol = "udp"
		}
	}
	if ok {
		t.forward(s, f)
	} else {
		t.miss()
	}
	t.contenders(s)
	return nil
}

// loopback is where a NodePort of the loopback leads: to the node's own address. Any other address is itself.
func (t *trace) loopback(a netip.Addr, port uint16) netip.Addr {
	n := t.Snapshot.NodeNamed(t.r.From.Node)
	if !a.IsLoopback() || t.r.From.Kind != fromNode || n == nil || t.to.protocol != model.TCP || !n.AnswersNodePorts(a) {
		return a
	}
	for _, own := range n.NodePortAddrs(a.Is6()) {
		if _, f, ok := t.frontend(netip.AddrPortFrom(own, port), model.TCP); ok && f.Kind == model.NodePort {
			t.notef("what answers at the loopback of %s passes the connection on to %s", n.Name, own)
			return own
		}
	}
	return a
}

// contenders tells of Services that want an address that another one has, which is the older.
func (t *trace) contenders(s *model.Service) {
	for _, c := range t.Snapshot.Conflicts() {
		switch {
		case c.Addr == t.r.Addr && c.Protocol == t.to.protocol:
			t.notef("Service %s wants %s/%s too, and does not get it: Service %s is older", c.Loser, c.Addr, c.Protocol, c.Winner)
		case s != nil && c.Loser == s.Name:
			t.notef("it does not get %s/%s, which Service %s has, because that one is older", at(c.Addr), c.Protocol, c.Winner)
		}
	}
}

// at is an address in words: NodePorts are those of every node.
func at(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf("NodePort %d", a.Port())
	}
	return a.String()
}

// port finds the number, by the ports of the Service that has the address where none is given.
func (t *trace) port(a netip.Addr) (uint16, error) {
	if n := number(t.to.port); n != 0 {
		return n, nil
	}
	s := t.owner(a)
	if s == nil || len(s.Ports) == 0 {
		if t.to.port == "" && t.to.name != "" {
			return 0, nil
		}
		if t.to.port != "" {
			return 0, questionf("no Service has the address %s, so a port can only be a number there, not %q", a, t.to.port)
		}
		return 0, questionf("give a port, as in %s: no Service has the address %s, so there is none to take it from", netip.AddrPortFrom(a, 80), a)
	}
	if t.to.port == "" {
		p := s.Ports[0]
		t.to.protocol, t.r.Protocol = p.Protocol, p.Protocol.String()
		if len(s.Ports) > 1 {
			t.notef("no port was given: this is the first of %s", portList(s))
		}
		return p.Port, nil
	}
	for _, p := range s.Ports {
		if p.Name == t.to.port {
			t.to.protocol, t.r.Protocol = p.Protocol, p.Protocol.String()
			return p.Port, nil
		}
	}
	return 0, questionf("Service %s has no port named %q: it has %s", s.Name, t.to.port, portList(s))
}

// owner is the Service whose address a is, not counting NodePorts.
func (t *trace) owner(a netip.Addr) *model.Service {
	for s := range t.Snapshot.Services() {
		if slices.Contains(s.ClusterIPs, a) || slices.Contains(s.LoadBalancerAddrs, a) {
			return s
		}
		if slices.ContainsFunc(s.Frontends, func(f model.Frontend) bool { return f.Addr.Addr() == a }) {
			return s
		}
	}
	return nil
}

// frontend finds what answers at an address. An exact address goes before a NodePort, which is every node's.
func (t *trace) frontend(a netip.AddrPort, p model.Protocol) (s *model.Service, f model.Frontend, ok bool) {
	node := t.Snapshot.LocalNode(a.Addr())
	for svc := range t.Snapshot.Services() {
		for _, g := range svc.Frontends {
			if g.Protocol != p || g.Addr.Port() != a.Port() {
				continue
			}
			if g.Addr == a {
				return svc, g, true
			}
			if g.Kind == model.NodePort && node != nil && node.AnswersNodePorts(a.Addr()) && g.Addr.Addr().Is6() == a.Addr().Is6() {
				s, f, ok = svc, g, true
			}
		}
	}
	return s, f, ok
}

func portList(s *model.Service) string {
	var parts []string
	for _, p := range s.Ports {
		text := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.Name != "" {
			text += fmt.Sprintf(" (%s)", p.Name)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
