package ingress

import (
	"net/netip"
	"strings"
	"testing"

	"minato/internal/model"
)

func TestBackendsAreThoseOfTheClusterIP(t *testing.T) {
	i := newIngress(t, "a", "x.example.com Prefix / web")
	svc := newService("web", "10.244.1.5", "10.244.2.5", "10.244.1.6")
	b := svc.Slices[0].Backends
	b[1].NodeName = "node2"
	b[2].Ready = false
	on := func(policy model.TrafficPolicy) []string {
		svc := *svc
		svc.InternalTrafficPolicy = policy
		s := snapshot(i).With(func(e *model.Edit) { e.SetService(&svc) }).On(&model.Node{Name: "node1"})
		var addrs []string
		for _, b := range New(s).Pools()[0].Backends {
			addrs = append(addrs, b.Addr.String())
		}
		return addrs
	}
	if got := strings.Join(on(model.Cluster), " "); got != "10.244.1.5:8080 10.244.2.5:8080" {
		t.Errorf("policy Cluster: %s", got)
	}
	if got := strings.Join(on(model.Local), " "); got != "10.244.1.5:8080" {
		t.Errorf("policy Local: %s", got)
	}
}

func TestAHeadlessServiceIsABackendToo(t *testing.T) {
	svc := newService("web", "10.244.1.5")
	svc.ClusterIPs, svc.Headless, svc.Proxied = nil, true, false
	s := snapshot(newIngress(t, "a", "x.example.com Prefix / web")).With(func(e *model.Edit) { e.SetService(svc) })
	if n := len(New(s).Pools()[0].Backends); n != 1 {
		t.Errorf("%d backends", n)
	}
}

func TestTheFamilyWithBackendsCounts(t *testing.T) {
	svc := newService("web", "10.244.1.5")
	svc.ClusterIPs = []netip.Addr{netip.MustParseAddr("fd00::9"), netip.MustParseAddr("10.96.0.9")}
	s := snapshot(newIngress(t, "a", "x.example.com Prefix / web")).With(func(e *model.Edit) { e.SetService(svc) })
	if n := len(New(s).Pools()[0].Backends); n != 1 {
		t.Errorf("%d backends", n)
	}
}

func TestBackendsThatCannotBeAreProblemsOfTheirIngress(t *testing.T) {
	web := newService("web", "10.244.1.5")
	web.Ports = append(web.Ports, model.Port{Name: "dns", Protocol: model.UDP, Port: 53})
	alias := newService("alias")
	alias.Type = model.TypeExternalName
	for _, c := range []struct {
		backend model.IngressBackend
		want    string
	}{
		{model.IngressBackend{Service: "web", Port: 80}, ""},
		{model.IngressBackend{Service: "web", PortName: "http"}, ""},
		{model.IngressBackend{Service: "web", Port: 81}, "name one of the TCP ports of Service default/web (80 http): there is no port 81"},
		{model.IngressBackend{Service: "web", PortName: "dns"}, `name one of the TCP ports of Service default/web (80 http): there is no port "dns"`},
		{model.IngressBackend{Service: "gone", Port: 80}, "create Service default/gone, or name another one: there is none of this name, and requests for it get error 503"},
		{model.IngressBackend{Service: "alias", Port: 80}, "give Service default/alias a selector: one of type ExternalName cannot be the backend of an Ingress"},
		{model.IngressBackend{}, "a backend that is no Service cannot be reached: requests to it get error 503"},
	} {
		bad, good := newIngress(t, "a", "bad.example.com Prefix / x"), newIngress(t, "b", "good.example.com Prefix / web")
		bad.Rules[0].Paths[0].Backend = c.backend
		s := model.Empty().With(func(e *model.Edit) {
			e.SetIngress(bad)
			e.SetIngress(good)
			e.SetService(web)
			e.SetService(alias)
		})
		p := New(s)
		if got := problems(p, "a"); got != c.want {
			t.Errorf("%s: %q, want %q", c.backend, got, c.want)
		}
		if got := problems(p, "b"); got != "" || service(p, "good.example.com", "/") != "web" {
			t.Errorf("%s disturbs another Ingress: %q", c.backend, got)
		}
		if (c.want == "") != (len(p.Pool(p.Lookup("bad.example.com", "/").Pool).Backends) > 0) {
			t.Errorf("%s: wrong backends", c.backend)
		}
	}
}

func TestCertificatesBySNI(t *testing.T) {
	own, wild, all := certificate("own.example.com"), certificate("*.example.com"), certificate("anything")
	a := newIngress(t, "a", "own.example.com Prefix / web", "tls own.example.com", "tls *.example.com", "plain.example.org Prefix / web")
	a.TLS[0].Certificate, a.TLS[0].Secret = own, "own"
	a.TLS[1].Certificate, a.TLS[1].Secret = wild, "wild"
	p := New(snapshot(a))
	name := func(c *TLS) string {
		if c == nil {
			return "default"
		}
		return c.Secret
	}
	for host, want := range map[string]string{
		"own.example.com": "default/own", "other.example.com": "default/wild", "a.b.example.com": "default", "example.com": "default",
		"plain.example.org": "default", "": "default", ".example.com": "default",
	} {
		if got := name(p.TLS(host)); got != want {
			t.Errorf("SNI %q gets %s, want %s", host, got, want)
		}
	}
	for host, want := range map[string]bool{"own.example.com": true, "other.example.com": true, "plain.example.org": false} {
		if p.Secure(host) != want {
			t.Errorf("Secure(%s) is not %t", host, want)
		}
	}
	rest := newIngress(t, "b", "default web", "tls")
	rest.TLS[0].Certificate, rest.TLS[0].Secret = all, "all"
	if got := name(New(snapshot(a, rest)).TLS("elsewhere.org")); got != "default/all" {
		t.Errorf("without hosts in TLS and rules: %s", got)
	}
}

func TestTLSWithoutHostsIsForThoseOfTheRules(t *testing.T) {
	i := newIngress(t, "a", "x.example.com Prefix / web", "y.example.com Prefix / web", "tls")
	i.TLS[0].Certificate, i.TLS[0].Secret = certificate("x.example.com"), "s"
	p := New(snapshot(i))
	if p.TLS("x.example.com") == nil || p.TLS("y.example.com") == nil || p.TLS("z.example.com") != nil {
		t.Error(text(p))
	}
	if got, want := problems(p, "a"), "make Secret s anew with a certificate for host y.example.com: it is for x.example.com, and clients will not trust it"; got != want {
		t.Errorf("told %q", got)
	}
}

func TestTheOlderIngressHasTheCertificate(t *testing.T) {
	a, b := newIngress(t, "a", "x.example.com Prefix /a web", "tls x.example.com"), newIngress(t, "b", "x.example.com Prefix /b web", "tls x.example.com")
	a.TLS[0].Certificate, a.TLS[0].Secret = certificate("x.example.com"), "one"
	b.TLS[0].Certificate, b.TLS[0].Secret = certificate("x.example.com"), "two"
	p := New(snapshot(b, a))
	if got := p.TLS("x.example.com").Secret; got != "default/one" {
		t.Errorf("it has %s", got)
	}
	if got := problems(p, "b"); !strings.Contains(got, "it has the certificate of the older Ingress default/a") {
		t.Errorf("told %q", got)
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	for _, c := range []struct {
		redirect model.HTTPSRedirect
		tls      bool
		want     bool
	}{
		{model.RedirectTLSHosts, true, true}, {model.RedirectTLSHosts, false, false},
		{model.RedirectNever, true, false}, {model.RedirectAlways, false, true},
	} {
		i := newIngress(t, "a", "x.example.com Prefix / web")
		i.Redirect = c.redirect
		if c.tls {
			i.TLS = []model.IngressTLS{{Hosts: []string{"x.example.com"}}}
		}
		p := New(snapshot(i))
		if got := p.Redirects(p.Lookup("x.example.com", "/"), "x.example.com"); got != c.want {
			t.Errorf("redirect %s, TLS %t: %t", c.redirect, c.tls, got)
		}
		if e := p.Explain("x.example.com", "/", true); e.Redirect {
			t.Error("a request over HTTPS is redirected")
		}
	}
}

func TestAnEndpointChangesOnlyItsPool(t *testing.T) {
	before := snapshot(newIngress(t, "a", "x.example.com Prefix / web", "x.example.com Prefix /api api"))
	p := New(before)
	n := p.Next(before.With(func(e *model.Edit) { e.SetService(newService("api", "10.244.1.7")) }))
	name := func(s string) PoolName { return PoolName{model.ServiceName{Namespace: "default", Name: s}, 80, ""} }
	if p.Pool(name("web")) != n.Pool(name("web")) || p.Pool(name("api")) == n.Pool(name("api")) {
		t.Error("not exactly the pool of the changed Service is new")
	}
	if p.hosts["x.example.com"] != n.hosts["x.example.com"] {
		t.Error("the host was planned anew")
	}
}

func TestWithdrawKeepsAPoolThatIsReplacedAsAWhole(t *testing.T) {
	before := snapshot(newIngress(t, "a", "x.example.com Prefix / web"))
	p := New(before)
	for _, c := range []struct {
		addrs []string
		want  string
	}{
		{[]string{"10.244.1.9"}, "10.244.1.5:8080"},
		{[]string{"10.244.1.5", "10.244.1.9"}, "10.244.1.5:8080"},
		{nil, ""},
	} {
		next := p.Next(before.With(func(e *model.Edit) { e.SetService(newService("web", c.addrs...)) }))
		var got []string
		for _, b := range p.Withdraw(next).Pools()[0].Backends {
			got = append(got, b.Addr.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("on the way to %v: %v", c.addrs, got)
		}
	}
}

func TestHeldServicesKeepTheirBackends(t *testing.T) {
	before := snapshot(newIngress(t, "a", "x.example.com Prefix / web"))
	p := New(before)
	next := p.Next(before.With(func(e *model.Edit) {
		e.SetService(newService("web", "10.244.1.9"))
		e.SetService(newService("new", "10.244.1.10"))
		e.SetIngress(newIngress(t, "b", "y.example.com Prefix / new"))
	}))
	held := next.Hold(func(model.ServiceName) bool { return true }, p)
	if got := held.Pool(p.Lookup("x.example.com", "/").Pool).Backends[0].Addr.String(); got != "10.244.1.5:8080" {
		t.Errorf("the held Service has %s", got)
	}
	if n := len(held.Pool(held.Lookup("y.example.com", "/").Pool).Backends); n != 0 {
		t.Errorf("a held Service that is new has %d backends", n)
	}
	if got := next.Hold(nil, p); text(got) != text(next) {
		t.Error("nothing held is not the plan itself")
	}
}

func TestExplainSaysWhyNotTheOthers(t *testing.T) {
	i := newIngress(t, "a",
		"www.foo.com Prefix /a/b deep", "www.foo.com Prefix /a a", "www.foo.com Exact /a/b/c exact", "www.foo.com Prefix /z z", "*.foo.com Prefix / wild", "default rest")
	p := New(snapshot(i, newIngress(t, "b", "(any) Prefix / any")))
	got := p.Explain("www.foo.com", "/a/b/c/d", false).String()
	want := `forwarded by prefix /a/b -> default/deep:80 (Ingress default/a), to 10.244.1.5:8080
  not host *.foo.com: the name itself comes before a wildcard
  not rules without a host: host www.foo.com has rules of its own
  not exact /a/b/c -> default/exact:80 (Ingress default/a): not the whole path
  not prefix /a -> default/a:80 (Ingress default/a): a longer path matches
  not prefix /z -> default/z:80 (Ingress default/a): the path does not begin with these elements
  not default -> default/rest:80 (Ingress default/a): a path matches
pool default/deep:80 forward
  backend 10.244.1.5:8080 on node1
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, c := range []struct{ host, path, want string }{
		{"www.foo.com", "/a%2fb", "error 400"},
		{"a.b.foo.org", "/", "forwarded by prefix / -> default/any:80"},
	} {
		if got := p.Explain(c.host, c.path, false).Outcome; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s%s: %s", c.host, c.path, got)
		}
	}
}

func TestTextIsTheWholePlan(t *testing.T) {
	i := newIngress(t, "a", "shop.example.com Prefix / web", "shop.example.com Exact /cart cart", "*.example.com Prefix / web", "tls shop.example.com")
	i.MaxBody = 1024
	i.TLS[0].Certificate, i.TLS[0].Secret = certificate("shop.example.com"), "shop"
	s := snapshot(i, newIngress(t, "b", "default gone", "tls x.example.org")).With(func(e *model.Edit) {
		e.DeleteService(model.ServiceName{Namespace: "default", Name: "gone"})
		cart := newService("cart", "10.244.1.7", "10.244.1.8")
		cart.Slices[0].Backends[1].Ready = false
		e.SetService(cart)
	})
	want := `host shop.example.com tls=default/shop names=shop.example.com until=0001-01-01
  exact /cart -> default/cart:80 (Ingress default/a) http=308 maxBody=1024
  prefix / -> default/web:80 (Ingress default/a) http=308 maxBody=1024
host x.example.org tls=default
host *.example.com
  prefix / -> default/web:80 (Ingress default/a) maxBody=1024
host (any)
  default -> default/gone:80 (Ingress default/b)
pool default/cart:80 forward
  backend 10.244.1.7:8080 on node1
  left out 10.244.1.8:8080 on node1: not ready
pool default/gone:80 reject
pool default/web:80 forward
  backend 10.244.1.5:8080 on node1
problem default/b: create Service default/gone, or name another one: there is none of this name, and requests for it get error 503
`
	if got := text(New(s)); got != want {
		t.Errorf("got\n%s", got)
	}
}
