package explain

import (
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// ndots is in every pod's resolv.conf: names with fewer dots go through the search path first.
const ndots = 5

// lookup resolves the destination's name as a resolver in the origin's pod does. ok is false when that ends the
// trace.
func (t *trace) lookup() (addr netip.Addr, ok bool) {
	l := &Lookup{Name: t.to.name}
	t.r.Lookup = l
	if t.r.From.Kind != fromPod {
		t.notAPod()
		return addr, false
	}
	for _, name := range searched(t.to.name, t.r.From.namespace, t.Domain) {
		l.Tried = append(l.Tried, name)
		a := t.Names.Resolve(name)
		l.CNAME = a.CNAME
		if l.Addrs = a.Addrs; len(a.Addrs) > 0 {
			l.Chosen = pick(a.Addrs, t.r.From.Addr)
			return l.Chosen, t.alone(name)
		}
		if a.Outside && (a.CNAME != "" || strings.Contains(name, ".")) {
			t.upstream(name, a.CNAME)
			return addr, false
		}
	}
	t.noName()
	return addr, false
}

// upstream ends with a name that is somebody else's: the one asked for, or the target of an ExternalName Service.
func (t *trace) upstream(name, cname string) {
	if s := t.named(name); s != nil {
		t.r.Service = s.Name.String()
	}
	if cname != "" {
		t.end(Delivered, "it is an alias of %s, for which an upstream server answers: the connection leaves the cluster", cname)
		return
	}
	t.end(Delivered, "%s is no name of the cluster, an upstream server answers for it: the connection leaves the cluster", name)
	labels := strings.Split(name, ".")
	t.suggest(labels[1], labels[0])
}

// searched lists the fully qualified names in the order in which resolvers try them.
func searched(name, namespace, domain string) []string {
	if absolute, ok := strings.CutSuffix(name, "."); ok {
		return []string{absolute}
	}
	var names []string
	for _, suffix := range []string{namespace + ".svc." + domain, "svc." + domain, domain} {
		names = append(names, name+"."+suffix)
	}
	if strings.Count(name, ".") >= ndots {
		return slices.Insert(names, 0, name)
	}
	return append(names, name)
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
	front, ok := strings.CutSuffix(name, ".svc."+t.Domain)
	labels := strings.Split(front, ".")
	if !ok || len(labels) != 2 {
		return nil
	}
	return t.Snapshot.Service(model.ServiceName{Namespace: labels[1], Name: labels[0]})
}

func (t *trace) notAPod() {
	who := "a node"
	if t.r.From.Kind == fromLAN {
		who = "a machine on the LAN"
	}
	t.end(NoSuchName, "%s does not ask the cluster's DNS: names of Services are known to pods", who)
	for _, name := range searched(t.to.name, "default", t.Domain) {
		s := t.named(name)
		if s == nil {
			continue
		}
		t.advise("use an address: `minato explain svc/%s/%s --from %s` goes on from there", s.Name.Namespace, s.Name.Name, t.r.From.flag())
		return
	}
}

func (o Origin) flag() string {
	switch {
	case o.Kind == fromLAN && !o.Addr.IsValid():
		return fromLAN
	case o.Name != "":
		return o.Kind + "/" + o.Name
	}
	return o.Addr.String()
}

func (t *trace) noName() {
	t.end(NoSuchName, "no address is known for %s, nor with the search path of namespace %s", t.to.name, t.r.From.namespace)
	labels := strings.Split(strings.TrimSuffix(t.to.name, "."), ".")
	namespace := t.r.From.namespace
	if len(labels) > 1 {
		namespace = labels[1]
	}
	n := model.ServiceName{Namespace: namespace, Name: labels[0]}
	if s := t.Snapshot.Service(n); s != nil && s.Headless {
		t.end(NoSuchName, "Service %s is headless and has no ready backend: its name gives no address", n)
		t.adviseBackends(s)
		return
	}
	t.suggest(namespace, labels[0])
}

// suggest proposes Services that may be meant: the same name elsewhere, or a similar one here.
func (t *trace) suggest(namespace, name string) {
	const most = 3
	for s := range t.Snapshot.Services() {
		if len(t.r.Advice) >= most {
			return
		}
		switch n := s.Name; {
		case n.Name == name && n.Namespace != namespace:
			t.advise("Service %s is in another namespace: its name from here is %s.%s", name, n.Name, n.Namespace)
		case n.Namespace == namespace && n.Name != name && distance(n.Name, name) <= 2:
			t.advise("did you mean %s?", n.Name)
		}
	}
}

// distance is the number of letters to put in, take out or change to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
