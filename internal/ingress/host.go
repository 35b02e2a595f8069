package ingress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"minato/internal/model"
)

// Route says where requests to one path go.
type Route struct {
	Host     string // as the rule has it: a name, "*." and a name, or empty
	Path     string // decoded; a prefix without "/" at its end, so that "" is every path
	Type     model.PathType
	Default  bool // a defaultBackend, which no path led to
	Pool     PoolName
	Ingress  model.IngressName
	Redirect model.HTTPSRedirect
	MaxBody  int64 // bytes, 0 for any number
}

// String is the route as text: what is matched, and where it leads.
func (r *Route) String() string {
	what := r.Type.String() + " " + cmp.Or(r.Path, "/")
	if r.Default {
		what = "default"
	}
	return fmt.Sprintf("%s -> %s (Ingress %s)", what, r.Pool, r.Ingress)
}

// TLS is the certificate of a host.
type TLS struct {
	Certificate *model.Certificate // nil: the default one
	Secret      string             // namespace and name, empty when none is named
	Ingress     model.IngressName
}

// Host is everything about one host. It is immutable.
type Host struct {
	Name    string // as the rules have it
	Ruled   bool   // some rule names it; else it is here for its certificate alone
	Default *Route // for paths without a route; nil: not found
	TLS     *TLS   // nil: no Ingress has TLS for it
	exact   map[string]*Route
	prefix  map[string]*Route
	losses  []Problem
}

// Problem is something about an Ingress that its owner should change.
type Problem struct {
	Ingress model.IngressName
	Text    string
}

// hostKey is the key of a host's entry: a wildcard is the suffix from its dot on, which no name begins with.
func hostKey(host string) string { return strings.TrimPrefix(host, "*") }

// hostKeys are the keys of all hosts of which an Ingress says something.
func hostKeys(i *model.Ingress) map[string]bool {
	keys := map[string]bool{}
	if i == nil || !i.Served {
		return keys
	}
	for _, r := range i.Rules {
		keys[hostKey(r.Host)] = true
	}
	for _, t := range i.TLS {
		for _, h := range t.Hosts {
			keys[hostKey(h)] = true
		}
	}
	if len(i.Rules) == 0 && i.Default != nil {
		keys[""] = true
	}
	return keys
}

// planHost makes a host of the Ingresses that say something of it, the oldest first: of two that want the same, the
// older has it, and the other is told.
func planHost(key string, claims []*model.Ingress) *Host {
	h := &Host{Name: key, exact: map[string]*Route{}, prefix: map[string]*Route{}}
	if strings.HasPrefix(key, ".") {
		h.Name = "*" + key
	}
	for _, i := range claims {
		ruled := len(i.Rules) == 0 && i.Default != nil && key == ""
		for _, r := range i.Rules {
			if hostKey(r.Host) == key {
				ruled = true
				h.addPaths(i, r)
			}
		}
		h.Ruled = h.Ruled || ruled
		if ruled && i.Default != nil {
			r := h.route(i, *i.Default)
			r.Default = true
			if h.Default == nil {
				h.Default = r
			} else if h.Default.Ingress != i.Name {
				h.lose(i, "the default backend of %s is that of the older Ingress %s: delete one of them", h.title(), h.Default.Ingress)
			}
		}
		h.addTLS(i, key)
	}
	return h
}

func (h *Host) route(i *model.Ingress, b model.IngressBackend) *Route {
	return &Route{
		Host: h.Name, Ingress: i.Name, Redirect: i.Redirect, MaxBody: i.MaxBody,
		Pool: PoolName{model.ServiceName{Namespace: i.Name.Namespace, Name: b.Service}, b.Port, b.PortName},
	}
}

func (h *Host) addPaths(i *model.Ingress, rule model.IngressRule) {
	for _, p := range rule.Paths {
		path, err := rulePath(p.Path, p.Type == model.PathExact)
		if err != nil {
			h.lose(i, "write path %q of %s as / with names between: no request can have it as it is", p.Path, h.title())
			continue
		}
		r := h.route(i, p.Backend)
		r.Path, r.Type = path, p.Type
		routes := h.prefix
		if p.Type == model.PathExact {
			routes = h.exact
		}
		switch have := routes[path]; {
		case have == nil:
			routes[path] = r
		case have.Ingress == i.Name:
			h.lose(i, "%s path %q of %s is there twice: delete one, the first counts", p.Type, p.Path, h.title())
		default:
			h.lose(i, "choose another host or path: %s path %q of %s belongs to the older Ingress %s", p.Type, p.Path, h.title(), have.Ingress)
		}
	}
}

func (h *Host) addTLS(i *model.Ingress, key string) {
	for _, t := range i.TLS {
		if !wants(i, t, key) {
			continue
		}
		tls := &TLS{Certificate: t.Certificate, Ingress: i.Name}
		if t.Secret != "" {
			tls.Secret = i.Name.Namespace + "/" + t.Secret
		}
		if c := t.Certificate; c != nil && key != "" && !covers(c, h.Name) {
			h.lose(i, "make Secret %s anew with a certificate for %s: it is for %s, and clients will not trust it", t.Secret, h.title(), strings.Join(c.Names, ", "))
		}
		switch {
		case h.TLS == nil:
			h.TLS = tls
		case h.TLS.Secret != tls.Secret:
			h.lose(i, "name one Secret only for %s: it has the certificate of the older Ingress %s", h.title(), h.TLS.Ingress)
		}
	}
}

// wants reports whether an entry of spec.tls is for the host. Without hosts it is for those of the rules.
func wants(i *model.Ingress, t model.IngressTLS, key string) bool {
	is := func(h string) bool { return hostKey(h) == key }
	if len(t.Hosts) > 0 {
		return slices.ContainsFunc(t.Hosts, is)
	}
	return len(i.Rules) == 0 && key == "" || slices.ContainsFunc(i.Rules, func(r model.IngressRule) bool { return is(r.Host) })
}

// covers reports whether a certificate is for a host, which may be a wildcard itself.
func covers(c *model.Certificate, host string) bool {
	return slices.ContainsFunc(c.Names, func(n string) bool {
		n = strings.ToLower(n)
		if suffix, ok := strings.CutPrefix(n, "*"); ok {
			_, rest, _ := strings.Cut(host, ".")
			return n == host || !strings.HasPrefix(host, "*") && suffix == "."+rest
		}
		return n == host
	})
}

func (h *Host) title() string {
	if h.Name == "" {
		return "rules without a host"
	}
	return "host " + h.Name
}

func (h *Host) lose(i *model.Ingress, format string, v ...any) {
	h.losses = append(h.losses, Problem{i.Name, fmt.Sprintf(format, v...)})
}

// lookup finds the route of a decoded path: an exact one, else the longest prefix by elements, else the default.
func (h *Host) lookup(path string) *Route {
	if r := h.exact[path]; r != nil {
		return r
	}
	for path = strings.TrimSuffix(path, "/"); ; path = path[:strings.LastIndexByte(path, '/')] {
		if r := h.prefix[path]; r != nil {
			return r
		}
		if path == "" {
			return h.Default
		}
	}
}

// Routes are all routes in the order in which they are tried: exact paths, prefixes from the longest on, the default.
func (h *Host) Routes() []*Route {
	var all []*Route
	for _, routes := range []map[string]*Route{h.exact, h.prefix} {
		for _, r := range routes {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *Route) int {
		return cmp.Or(-cmp.Compare(a.Type, b.Type), -cmp.Compare(elements(a.Path), elements(b.Path)), cmp.Compare(a.Path, b.Path))
	})
	if h.Default != nil {
		all = append(all, h.Default)
	}
	return all
}

func elements(path string) int { return strings.Count(strings.TrimSuffix(path, "/"), "/") }
