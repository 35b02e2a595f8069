package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
		t.suggest(t.to.service.Namespace, t.to.service.Name)
	case s.Type == model.TypeExternalName:
		t.r.Service = s.Name.String()
		t.end(Delivered, "an ExternalName Service is only a name: it leads to %s, which is looked up outside the cluster", s.ExternalName)
	case s.Headless:
		t.r.Service = s.Name.String()
		t.headless(s)
	case len(s.ClusterIPs) == 0:
		t.end(NoSuchName, "Service %s has no address yet", s.Name)
	default:
		return t.address(s.ClusterIPs[0])
	}
	return nil
}

// headless lists the pods that the name of a headless Service gives.
func (t *trace) headless(s *model.Service) {
	if t.r.From.Kind == fromLAN {
		t.end(Dropped, "a headless Service has only the addresses of its pods: only pods and nodes of the cluster have a way to them")
		return
	}
	seen := map[netip.Addr]bool{}
	for b := range s.AllBackends() {
		switch a := b.Addr.Addr(); {
		case seen[a]:
		case b.Ready:
			seen[a] = true
			t.direct(b.Addr, b)
		default:
			t.r.LeftOut = append(t.r.LeftOut, leftOut(model.LeftOut{Backend: b, Reason: model.NotReady}))
		}
	}
	t.even()
	if len(seen) == 0 {
		t.end(NoSuchName, "Service %s is headless and has no ready backend: its name gives no address", s.Name)
		t.adviseBackends(s)
		return
	}
	t.end(Delivered, "a headless Service has no address of its own: its name gives those of its pods, and ports are not translated")
}

// address goes to one address. The port may still be a name, or not given.
func (t *trace) address(a netip.Addr) error {
	port, err := t.port(a)
	if err != nil {
		return err
	}
	t.r.Addr = netip.AddrPortFrom(a, port)
	s, f, ok := t.frontend(t.r.Addr, t.to.protocol)
	if !ok && t.to.guessed {
		if s, f, ok = t.frontend(t.r.Addr, model.UDP); ok {
			t.to.protocol = model.UDP
			t.r.Protocol = "udp"
		}
	}
	if !ok {
		t.miss()
		return nil
	}
	t.forward(s, f)
	return nil
}

// port finds the number, by the ports of the Service that has the address where none is given.
func (t *trace) port(a netip.Addr) (uint16, error) {
	if n := t.to.number(); n != 0 {
		return n, nil
	}
	s := t.owner(a)
	if s == nil || len(s.Ports) == 0 {
		if t.to.port != "" {
			return 0, questionf("no Service has the address %s, so a port can only be a number there, not %q", a, t.to.port)
		}
		return 0, questionf("give a port: no Service has the address %s, so there is none to take it from", a)
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
			if g.Kind == model.NodePort && node != nil && g.Addr.Addr().Is6() == a.Addr().Is6() {
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
