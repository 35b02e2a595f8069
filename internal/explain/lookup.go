package explain

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/model"
)

// lookup resolves the destination's name as a resolver in the origin's place does. ok is false when that ends the
// trace.
func (t *trace) lookup() (addr netip.Addr, ok bool) {
	l := &Lookup{Name: t.to.name}
	t.r.Lookup = l
	res := t.resolver(t.r.From)
	if !res.cluster {
		return t.elsewhere(res)
	}
	l.Resolver = res.String()
	for _, name := range res.searched(t.to.name) {
		a := t.Names.Resolve(name)
		l.Steps = append(l.Steps, Step{name, t.answer(name, a)})
		l.CNAME = a.CNAME
		if l.Addrs = a.Addrs; len(a.Addrs) > 0 {
			l.Chosen = pick(a.Addrs, t.r.From.Addr)
			return l.Chosen, t.alone(name)
		}
		if a.Outside && (a.CNAME != "" || name == strings.TrimSuffix(t.to.name, ".") && strings.Contains(name, ".")) {
			return t.upstream(name, a.CNAME)
		}
	}
	t.noName(l.Steps)
	return addr, false
}

// answer puts an answer into words.
func (t *trace) answer(name string, a dns.Resolution) string {
	switch {
	case len(a.Addrs) > 0:
		return join(a.Addrs)
	case a.CNAME != "":
		return "alias of " + a.CNAME
	case a.Outside:
		return "an upstream server answers"
	}
	code := "NXDOMAIN"
	if a.Exists {
		code = "no address (NODATA)"
	}
	if why, ok := dns.Explain(t.Snapshot, t.Zone, name); ok {
		code += ": " + why.Text
	}
	return code
}

func join[T interface{ String() string }](all []T) string {
	var parts []string
	for _, v := range all {
		parts = append(parts, v.String())
	}
	return strings.Join(parts, ", ")
}

// upstream ends with a name that is somebody else's: the one asked for, or the target of an ExternalName Service. A
// URL whose host an Ingress has goes on to it.
func (t *trace) upstream(name, cname string) (addr netip.Addr, ok bool) {
	s := t.named(name)
	if s != nil {
		t.r.Service = s.Name.String()
	}
	if a := t.ingressAddr(cmp.Or(cname, name)); a.IsValid() {
		return a, true
	}
	if cname != "" {
		t.alias(cname)
		return addr, false
	}
	t.end(Delivered, "%s is no name of the cluster, an upstream server answers for it: the connection leaves the cluster", name)
	if strings.Count(name, ".") == 1 {
		t.suggest(name + ".svc." + t.Zone.Domain)
	}
	return addr, false
}

// alias ends at an ExternalName that leads out of the cluster, or was meant not to.
func (t *trace) alias(cname string) {
	labels := strings.Split(cname, ".")
	namespace := t.r.From.namespace
	if len(labels) == 2 {
		namespace = labels[1]
	}
	inside := t.Snapshot.Service(model.ServiceName{Namespace: namespace, Name: labels[0]})
	switch {
	case len(labels) == 1:
		t.end(NoSuchName, "it is an alias of %q, which is looked up as it stands: an alias has no search path, and no server outside knows a name without a dot", cname)
		t.advise("write a whole name into externalName")
	default:
		t.end(Delivered, "it is an alias of %s, for which an upstream server answers: the connection leaves the cluster", cname)
	}
	if inside != nil && len(labels) <= 2 {
		t.advise("if Service %s is meant, its whole name is %s.%s.svc.%s", inside.Name, inside.Name.Name, inside.Name.Namespace, t.Zone.Domain)
	}
}

// pick prefers an address of the family that the origin has.
func pick(all []netip.Addr, from netip.Addr) netip.Addr {
	for _, a := range all {
		if !from.IsValid() || a.Is6() == from.Is6() {
			return a
		}
	}
	return all[0]
}

// alone reports whether the name gives one place to go on from. The name of a headless Service gives its pods.
func (t *trace) alone(name string) bool {
	s := t.named(name)
	if s == nil || !s.Headless {
		return true
	}
	t.r.Service = s.Name.String()
	t.headless(s)
	return false
}

// named is the Service that a fully qualified name is the name of.
func (t *trace) named(name string) *model.Service {
	front, ok := strings.CutSuffix(name, ".svc."+t.Zone.Domain)
	labels := strings.Split(front, ".")
	if !ok || len(labels) != 2 {
		return nil
	}
	return t.Snapshot.Service(model.ServiceName{Namespace: labels[1], Name: labels[0]})
}

// elsewhere goes on from a place that does not ask the cluster's DNS: only the host of an Ingress leads anywhere.
func (t *trace) elsewhere(res resolver) (addr netip.Addr, ok bool) {
	if a := t.ingressAddr(t.to.name); a.IsValid() {
		return a, true
	}
	if t.notOurs(res); t.to.url != nil && t.r.From.Kind == fromLAN && len(t.r.Advice) == 0 {
		t.noHost()
	}
	if len(t.r.Advice) == 0 {
		t.advise("give an address, or --from pod/NAMESPACE/NAME to ask the cluster's DNS")
	}
	return addr, false
}

// notOurs ends a name that is asked of somebody else than the cluster's DNS.
func (t *trace) notOurs(res resolver) {
	who := "a node"
	switch {
	case t.r.From.Kind == fromLAN:
		who = "a machine on the LAN"
	case res.why != "":
		who = "this pod (" + res.why + ")"
	}
	t.end(NoSuchName, "%s does not ask the cluster's DNS, which alone knows the names of Services", who)
	if res.advice != "" {
		t.advise("%s", res.advice)
	}
	usual := resolver{search: []string{"default.svc." + t.Zone.Domain, "svc." + t.Zone.Domain, t.Zone.Domain}, ndots: defaultNdots}
	for _, name := range usual.searched(t.to.name) {
		if s := t.named(name); s != nil {
			t.advise("use an address: `minato explain svc/%s/%s --from %s` goes on from there", s.Name.Namespace, s.Name.Name, t.r.From.flag())
			return
		}
	}
}

func (o Origin) flag() string {
	switch {
	case o.Kind == fromLAN && o.Name != "":
		return fromLAN
	case o.pod != nil:
		return fromPod + "/" + o.Name
	case o.Name != "":
		return o.Kind + "/" + o.Name
	}
	return o.Addr.String()
}

// noName says why no step has given an address, by the one that was most likely meant.
func (t *trace) noName(steps []Step) {
	meant := t.meant(steps)
	if s := t.named(meant); s != nil && s.Headless {
		t.r.Service = s.Name.String()
		t.headless(s)
		return
	}
	why, ok := dns.Explain(t.Snapshot, t.Zone, meant)
	if !ok {
		t.end(NoSuchName, "no address is known for %s", meant)
		return
	}
	t.end(NoSuchName, "%s", why.Text)
	t.r.Advice = append(t.r.Advice, why.Advice...)
	if len(t.r.Advice) == 0 {
		t.advise("`minato show services` lists those there are; from another namespace a name is SERVICE.NAMESPACE")
	}
}

// meant is the name that the user most likely thought of: a name of one label is a Service of the own namespace, one
// of two has a namespace, unless the second is a Service there, and the first one of its endpoints.
func (t *trace) meant(steps []Step) string {
	labels := strings.Split(strings.TrimSuffix(t.to.name, "."), ".")
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = s.Name
	}
	asked := strings.TrimSuffix(t.to.name, ".")
	if len(labels) > 1 && t.Snapshot.Service(model.ServiceName{Namespace: t.r.From.namespace, Name: labels[len(labels)-1]}) != nil {
		return names[0]
	}
	for _, suffix := range []string{"", "." + t.Zone.Domain, ".svc." + t.Zone.Domain} {
		if name := asked + suffix; slices.Contains(names, name) && strings.HasSuffix(name, ".svc."+t.Zone.Domain) && t.isService(name) {
			return name
		}
	}
	return names[0]
}

// isService reports whether a name has the form SERVICE.NAMESPACE.svc.DOMAIN, or is below one.
func (t *trace) isService(name string) bool {
	front, ok := strings.CutSuffix(name, ".svc."+t.Zone.Domain)
	return ok && strings.Contains(front, ".")
}

// suggest proposes what the DNS plan thinks may be meant by a fully qualified name.
func (t *trace) suggest(name string) {
	if why, ok := dns.Explain(t.Snapshot, t.Zone, name); ok {
		t.r.Advice = append(t.r.Advice, why.Advice...)
	}
}
