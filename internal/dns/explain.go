package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// Reason says why a fully qualified name has no address, and what may be meant instead.
type Reason struct {
	Text   string
	Advice []string
}

// Explain says why a name has no address in s; ok is false when it has one, or when it is none of the cluster's own.
// It is pure, and for people: it looks at all Services.
func Explain(s *model.Snapshot, z Zone, name string) (r Reason, ok bool) {
	wz, err := newZone(z)
	if err != nil {
		return r, false
	}
	return explain(s, wz, name, 0)
}

func explain(s *model.Snapshot, z *zone, name string, aliases int) (r Reason, ok bool) {
	wire, valid := parseName(name)
	if !valid {
		return Reason{Text: fmt.Sprintf("%q is not a domain name: a label is empty or longer than 63 bytes", name)}, true
	}
	name = strings.TrimSuffix(text(wire), ".")
	front, own := strings.CutSuffix("."+name, "."+strings.TrimSuffix(text(z.domain), "."))
	if !own {
		return r, false
	}
	x := explaining{s: s, zone: z, name: name, wire: wire, aliases: aliases}
	if front != "" {
		x.labels = strings.Split(front[1:], ".")
	}
	x.explain()
	return x.r, x.r.Text != ""
}

const maxAdvice = 3

type explaining struct {
	s       *model.Snapshot
	zone    *zone
	name    string
	wire    string
	labels  []string // below the domain
	aliases int      // followed so far
	r       Reason
}

func (x *explaining) because(format string, v ...any) { x.r.Text = fmt.Sprintf(format, v...) }

func (x *explaining) advise(format string, v ...any) {
	if len(x.r.Advice) < maxAdvice {
		x.r.Advice = append(x.r.Advice, fmt.Sprintf(format, v...))
	}
}

// full is a name below the domain.
func (x *explaining) full(labels ...string) string {
	return strings.Join(labels, ".") + "." + strings.TrimSuffix(text(x.zone.domain), ".")
}

func (x *explaining) explain() {
	n := len(x.labels)
	if n == 0 {
		x.because("%s is the cluster's domain itself and has no address", x.name)
		return
	}
	kind := x.labels[n-1]
	switch {
	case kind != "svc" && kind != "pod":
		x.because("the names of the cluster are SERVICE.NAMESPACE.%s", x.full("svc"))
		if n == 2 && x.s.Service(model.ServiceName{Namespace: x.labels[1], Name: x.labels[0]}) != nil {
			x.advise("did you mean %s?", x.full(x.labels[0], x.labels[1], "svc"))
		}
	case n == 1:
		x.because("%s is where the names of the cluster begin and has no address", x.name)
	case !x.s.HasNamespace(x.labels[n-2]):
		x.noNamespace(x.labels[n-2])
	case n == 2:
		x.because("%s stands for a namespace and has no address", x.name)
	case kind == "pod":
		x.pod()
	default:
		x.service(model.ServiceName{Namespace: x.labels[n-2], Name: x.labels[n-3]})
	}
}

func (x *explaining) noNamespace(ns string) {
	x.because("there is no namespace %q", ns)
	n := len(x.labels)
	if n >= 3 && x.s.Service(model.ServiceName{Namespace: x.labels[n-3], Name: ns}) != nil {
		x.advise("the Service comes first: %s", x.full(ns, x.labels[n-3], "svc"))
	}
	for other := range x.s.Namespaces() {
		if Similar(other, ns) {
			x.advise("did you mean namespace %s?", other)
		}
	}
}

func (x *explaining) pod() {
	label := x.labels[len(x.labels)-3]
	if _, ok := undash([]byte(label)); !ok || len(x.labels) > 3 {
		x.because("names of pods are their addresses with dashes, as in %s", x.full("10-244-1-5", x.labels[len(x.labels)-2], "pod"))
		x.advise("a pod has a name of its own below a headless Service: set its hostname and subdomain, or use a StatefulSet")
	}
}

func (x *explaining) service(n model.ServiceName) {
	s := x.s.Service(n)
	if s == nil {
		x.noService(n)
		return
	}
	below := x.labels[:len(x.labels)-3]
	r := x.zone.recordsOf(s, nil)
	var here named
	if i := slices.IndexFunc(r.names, func(k named) bool { return k.name == x.wire }); i >= 0 {
		here = r.names[i]
	}
	switch {
	case len(here.items) > 0:
	case here.target != "":
		x.alias(n, strings.TrimSuffix(text(here.target), "."))
	case s.Type == model.TypeExternalName && len(below) > 0:
		x.because("Service %s is an alias (ExternalName): there are no names below it", n)
	case s.Type == model.TypeExternalName:
		x.because("the externalName of Service %s, %q, is an address: DNS has aliases to names only", n, s.ExternalName)
		x.advise("use a Service without a selector and an EndpointSlice with the address")
	case s.Headless && len(r.names) == 0:
		x.noEndpoints(s)
	case len(below) == 1:
		x.endpoint(s, below[0])
	default:
		x.port(s, below)
	}
}

// alias looks where an ExternalName leads. Outside the cluster that is an upstream's to say.
func (x *explaining) alias(n model.ServiceName, target string) {
	if x.aliases >= maxChain {
		x.because("the aliases from Service %s lead in a circle", n)
		return
	}
	if r, ok := explain(x.s, x.zone, target, x.aliases+1); ok {
		x.because("Service %s is an alias of %s, and %s", n, target, r.Text)
		x.r.Advice = r.Advice
	}
}

func (x *explaining) noService(n model.ServiceName) {
	x.because("there is no Service %s", n)
	for s := range x.s.Services() {
		switch o := s.Name; {
		case o.Name == n.Name:
			if len(x.r.Advice) == 0 {
				x.because("Service %s exists in namespace %s, not in %s", n.Name, o.Namespace, n.Namespace)
			}
			x.advise("ask for %s", x.full(o.Name, o.Namespace, "svc"))
		case o.Namespace == n.Namespace && Similar(o.Name, n.Name):
			x.advise("did you mean %s?", x.full(o.Name, o.Namespace, "svc"))
		}
	}
}

// noEndpoints is the surprise of headless Services: their name is gone while no pod is ready (coredns#6210).
func (x *explaining) noEndpoints(s *model.Service) {
	n := 0
	seen := map[netip.Addr]bool{}
	for b := range s.AllBackends() {
		if !seen[b.Addr.Addr()] {
			n++
		}
		seen[b.Addr.Addr()] = true
	}
	switch {
	case n > 0:
		x.because("headless Service %s has no ready endpoint: %d not ready", s.Name, n)
		x.advise("publishNotReadyAddresses: true names endpoints before they are ready")
	case s.Selector == "":
		x.because("headless Service %s has no endpoint and no selector: it needs an EndpointSlice", s.Name)
	default:
		x.because("headless Service %s has no endpoint, by selector %s", s.Name, s.Selector)
	}
}

func (x *explaining) endpoint(s *model.Service, label string) {
	x.because("no ready endpoint of Service %s is called %q", s.Name, label)
	for b := range s.AllBackends() {
		if !b.Ready && (b.Hostname == label || dashes(b.Addr.Addr()) == label) {
			x.advise("%s is there, and is not ready", b.Addr.Addr())
			return
		}
	}
	for b := range s.AllBackends() {
		if b.Ready && Similar(b.Hostname, label) {
			x.advise("did you mean %s?", b.Hostname)
		}
	}
}

func (x *explaining) port(s *model.Service, below []string) {
	x.because("Service %s has no port called %s", s.Name, strings.Join(below, "."))
	for _, p := range s.Ports {
		if p.Name != "" {
			x.advise("it has _%s._%s", p.Name, p.Protocol)
		}
	}
	if len(x.r.Advice) == 0 {
		x.advise("its ports have no names")
	}
}
