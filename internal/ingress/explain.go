package ingress

import (
	"cmp"
	"fmt"
	"strings"

	"minato/internal/model"
)

// Explanation is where a request goes, and why nowhere else.
type Explanation struct {
	Host     string // whose rules are used, as they have it; empty when none is, or for rules without a host
	Route    *Route // nil: not found
	Pool     *Pool  // nil with Route
	TLS      *TLS   // of the request's host; nil: the default certificate
	Redirect bool   // answered by a redirect to HTTPS
	Outcome  string // in one sentence
	Others   []string
	Advice   []string
}

// Explain follows a request, by the very look-ups that the proxy makes. path is escaped, as on the wire.
func (p *Plan) Explain(host, path string, https bool) Explanation {
	host = Hostname(host)
	e := Explanation{TLS: p.TLS(host)}
	parsed, err := ParsePath(path)
	if err != nil {
		e.Outcome = fmt.Sprintf("error 400: proxy and backend could read path %s differently", path)
		return e
	}
	h := p.host(host)
	e.Others = p.otherHosts(host, h)
	if h == nil {
		e.Outcome = fmt.Sprintf("error 404: no Ingress has a rule for host %s", host)
		e.Advice = p.unserved(host)
		return e
	}
	e.Host = h.Name
	e.Route = h.lookup(parsed.Decoded)
	for _, r := range h.Routes() {
		if r != e.Route {
			e.Others = append(e.Others, fmt.Sprintf("%s: %s", r, whyNot(r, e.Route, parsed.Decoded)))
		}
	}
	if e.Route == nil {
		e.Outcome = fmt.Sprintf("error 404: host %s has no rule for path %s, and no default backend", cmp.Or(h.Name, "(any)"), parsed.Decoded)
		return e
	}
	e.Pool = p.Pool(e.Route.Pool)
	switch e.Redirect = !https && p.Redirects(e.Route, host); {
	case e.Redirect:
		e.Outcome = fmt.Sprintf("redirected (308) to https://%s%s, there by %s", host, path, e.Route)
	case e.Pool.Problem != "":
		e.Outcome, e.Advice = fmt.Sprintf("error 503 by %s", e.Route), []string{e.Pool.Problem}
	case len(e.Pool.Backends) == 0:
		e.Outcome = fmt.Sprintf("error 503 by %s: no backend is ready", e.Route)
	case len(e.Pool.Backends) == 1:
		e.Outcome = fmt.Sprintf("forwarded by %s, to %s", e.Route, e.Pool.Backends[0].Addr)
	default:
		e.Outcome = fmt.Sprintf("forwarded by %s, to one of %d backends", e.Route, len(e.Pool.Backends))
	}
	return e
}

// otherHosts says why the rules of hosts that could be meant are not used.
func (p *Plan) otherHosts(name string, used *Host) (others []string) {
	for _, h := range p.Hosts() {
		if h == used || !h.Ruled {
			continue
		}
		suffix, wildcard := strings.CutPrefix(h.Name, "*")
		switch {
		case h.Name == "":
			others = append(others, fmt.Sprintf("rules without a host: host %s has rules of its own", used.Name))
		case wildcard && used != nil && hostOrder(name)[1] == suffix:
			others = append(others, fmt.Sprintf("host %s: the name itself comes before a wildcard", h.Name))
		case wildcard && (strings.HasSuffix(name, suffix) || name == suffix[1:]):
			others = append(others, fmt.Sprintf("host %s: a wildcard stands for exactly one label", h.Name))
		}
	}
	return others
}

// unserved finds Ingresses of other classes that have the host.
func (p *Plan) unserved(host string) (advice []string) {
	for i := range p.snapshot.Ingresses() {
		if i.Served {
			continue
		}
		for _, r := range i.Rules {
			if r.Host == host {
				advice = append(advice, fmt.Sprintf("Ingress %s has this host, but its class is %q: set spec.ingressClassName to one of minato's", i.Name, i.Class))
				break
			}
		}
	}
	return advice
}

func whyNot(r, used *Route, path string) string {
	whole := strings.TrimSuffix(path, "/")
	switch {
	case r.Default:
		return "a path matches"
	case r.Type == model.PathExact:
		return "not the whole path"
	case whole == r.Path, strings.HasPrefix(whole, r.Path+"/"):
		if used.Type == model.PathExact {
			return "an exact path comes first"
		}
		return "a longer path matches"
	}
	return "the path does not begin with these elements"
}

// Hostname is the host of a Host header as rules have it: in lower case, without port and final dot.
func Hostname(header string) string {
	if !plainHost(header) {
		header = strings.ToLower(header)
		if i := strings.LastIndexByte(header, ':'); i >= 0 && strings.IndexByte(header[i:], ']') < 0 {
			header = header[:i]
		}
		header = strings.TrimSuffix(header, ".")
	}
	return header
}

// plainHost reports whether there is nothing to change: most Host headers are names already.
func plainHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == ':' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return !strings.HasSuffix(s, ".")
}

// String is the explanation as text, a line for each fact.
func (e Explanation) String() string {
	var b strings.Builder
	b.WriteString(e.Outcome + "\n")
	for _, o := range e.Others {
		fmt.Fprintf(&b, "  not %s\n", o)
	}
	if e.Pool != nil && !e.Redirect {
		e.Pool.writeText(&b)
	}
	for _, a := range e.Advice {
		fmt.Fprintf(&b, "advice: %s\n", a)
	}
	return b.String()
}
