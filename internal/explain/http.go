package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/ingress"
	"minato/internal/model"
)

// Request is where the Ingress proxy sends a request.
type Request struct {
	Host        string    `json:"host"`
	Path        string    `json:"path"`
	Certificate string    `json:"certificate,omitempty"` // that clients see, in words; HTTPS only
	Route       string    `json:"route,omitempty"`
	Backends    []Choice  `json:"backends,omitempty"`
	LeftOut     []LeftOut `json:"leftOut,omitempty"`
	Others      []string  `json:"notUsed,omitempty"` // rules that could be meant, and why they are not used
}

// routes is the plan of the proxy of a node.
func (t *trace) routes(node string) *ingress.Plan {
	return ingress.New(t.Snapshot.On(t.Snapshot.NodeNamed(node)))
}

// proxied reports whether the Ingress proxy of a node answers at a port of the node.
func (t *trace) proxied(port uint16) bool {
	if t.Front.Name == "" || t.to.protocol != model.TCP || port != 80 && port != 443 {
		return false
	}
	return slices.ContainsFunc(slices.Collect(t.Snapshot.Ingresses()), func(i *model.Ingress) bool { return i.Served })
}

// ingressAddr is where a URL whose host an Ingress has leads, invalid for all others. DNS outside the cluster decides
// about that; the address of the Ingress is where it ought to lead.
func (t *trace) ingressAddr(host string) netip.Addr {
	if t.to.url == nil {
		return netip.Addr{}
	}
	e := t.routes("").Explain(host, t.to.url.EscapedPath(), t.to.tls())
	if e.Host == "" {
		return netip.Addr{}
	}
	a := t.frontAddr()
	if a.IsValid() {
		t.notef("DNS outside the cluster answers for %s: here it is taken to give %s, where Ingresses are served", host, a)
	}
	return a
}

func (t *trace) frontAddr() netip.Addr {
	for i := range t.Snapshot.Ingresses() {
		if i.Served && len(i.Addrs) > 0 {
			return i.Addrs[0]
		}
	}
	for n := range t.Snapshot.Nodes() {
		return n.Addr(false)
	}
	return netip.Addr{}
}

// noHost ends a URL from outside whose host no Ingress has.
func (t *trace) noHost() {
	plan := t.routes("")
	e := plan.Explain(t.to.name, t.to.url.EscapedPath(), t.to.tls())
	t.end(NoSuchName, "DNS outside the cluster answers for %s, and no Ingress has a rule for it", t.to.name)
	t.r.Advice = append(t.r.Advice, e.Advice...)
	var hosts []string
	for _, h := range plan.Hosts() {
		if dns.Similar(h.Name, t.to.name) {
			t.advise("did you mean %s://%s%s?", t.to.url.Scheme, h.Name, t.to.url.EscapedPath())
		}
		hosts = append(hosts, cmp.Or(h.Name, "(any)"))
	}
	if len(t.r.Advice) == 0 && len(hosts) > 0 {
		t.advise("Ingresses have rules for %s", strings.Join(hosts, ", "))
	}
}

// http follows a request from the proxy on. The verdict is that of the request then.
func (t *trace) http() {
	if t.r.Verdict != Delivered {
		return
	}
	node := t.r.Node
	if len(t.r.Backends) > 0 {
		node = t.r.Backends[0].Node
	}
	if t.to.url == nil {
		t.notef("an Ingress proxy answers: `minato explain http://HOST/PATH --from %s` follows a request on to its backends", t.r.From.flag())
		return
	}
	host, path := t.to.url.Hostname(), cmp.Or(t.to.url.EscapedPath(), "/")
	e := t.routes(node).Explain(host, path, t.to.tls())
	q := &Request{Host: host, Path: path, Others: e.Others}
	t.r.HTTP = q
	if t.to.tls() {
		q.Certificate = certificate(e.TLS)
	}
	verdict := Refused
	switch {
	case e.Route == nil:
	case e.Redirect:
		q.Route, verdict = e.Route.String(), Delivered
		t.advise("ask for https://%s%s to see where that goes", host, path)
	default:
		q.Route = e.Route.String()
		if t.backends(q, e.Pool, node); len(q.Backends) > 0 {
			verdict = Delivered
		}
	}
	t.end(verdict, "the Ingress proxy answers: %s", e.Outcome)
	t.r.Advice = append(t.r.Advice, e.Advice...)
	if verdict != Delivered && len(t.r.Advice) == 0 {
		t.adviseRequest(e)
	}
}

func (t *trace) adviseRequest(e ingress.Explanation) {
	switch s := (*model.Service)(nil); {
	case e.Route == nil:
		t.advise("`minato show routes` lists the hosts and paths of all Ingresses")
	default:
		if s = t.Snapshot.Service(e.Route.Pool.Service); s != nil {
			t.adviseBackends(s, nil)
		}
	}
}

// backends are those of a route, to which the proxy connects by itself.
func (t *trace) backends(q *Request, pool *ingress.Pool, node string) {
	for _, b := range pool.Backends {
		c := choice(b.Addr, b)
		c.Probability = 1 / float64(len(pool.Backends))
		c.Source = t.Snapshot.NodeNamed(node).Addr(b.Addr.Addr().Is6()).String()
		c.SourceWhy = fmt.Sprintf("the proxy of %s connects; the client's address is in X-Forwarded-For", node)
		q.Backends = append(q.Backends, c)
	}
	for _, l := range pool.LeftOut {
		q.LeftOut = append(q.LeftOut, leftOut(l))
	}
}

func certificate(c *ingress.TLS) string {
	switch {
	case c == nil:
		return "the default certificate, which clients do not trust: no Ingress has TLS for the host"
	case c.Certificate == nil && c.Secret != "":
		return fmt.Sprintf("the default certificate, which clients do not trust: Secret %s has none", c.Secret)
	case c.Certificate == nil:
		return fmt.Sprintf("the default certificate, which clients do not trust: Ingress %s names no Secret", c.Ingress)
	}
	return fmt.Sprintf("the certificate of Secret %s, for %s", c.Secret, strings.Join(c.Certificate.Names, ", "))
}
