package ingress

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"minato/internal/model"
)

var (
	someHosts  = rapid.SampledFrom([]string{"", "a.x", "b.x", "*.x", "*.a.x", "x", "a.b.x"})
	askedHosts = rapid.SampledFrom([]string{"a.x", "b.x", "c.x", "x", "a.a.x", "a.b.x", "y", "", ".x", "A.X:80", "a.x."})
	someNames  = rapid.SampledFrom([]string{"p", "q", "pq", "P"})
)

func somePath(t *rapid.T) string {
	return "/" + strings.Join(rapid.SliceOfN(someNames, 0, 3).Draw(t, "elements"), "/") + rapid.SampledFrom([]string{"", "/"}).Draw(t, "end")
}

func someIngress(t *rapid.T, name string) *model.Ingress {
	i := &model.Ingress{
		Name: model.IngressName{Namespace: "default", Name: name}, Served: rapid.IntRange(0, 5).Draw(t, "served") > 0,
		Created: time.Unix(rapid.Int64Range(0, 2).Draw(t, "created"), 0),
	}
	services := rapid.SampledFrom([]string{"one", "two", "three", "missing"})
	if rapid.Bool().Draw(t, "default") {
		b := port80(services.Draw(t, "service"))
		i.Default = &b
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		r := model.IngressRule{Host: someHosts.Draw(t, "host")}
		for range rapid.IntRange(0, 3).Draw(t, "paths") {
			r.Paths = append(r.Paths, model.IngressPath{
				Path:    strings.ReplaceAll(somePath(t), "//", "/"),
				Type:    rapid.SampledFrom([]model.PathType{model.PathPrefix, model.PathExact}).Draw(t, "type"),
				Backend: port80(services.Draw(t, "service")),
			})
		}
		i.Rules = append(i.Rules, r)
	}
	if rapid.Bool().Draw(t, "tls") {
		i.TLS = []model.IngressTLS{{Hosts: rapid.SliceOfN(someHosts, 0, 2).Draw(t, "hosts"), Secret: name}}
	}
	return i
}

// oracle follows the words of the API one rule at a time, without any table.
func oracle(all []*model.Ingress, host, path string) string {
	all = slices.DeleteFunc(slices.Clone(all), func(i *model.Ingress) bool { return !i.Served })
	slices.SortFunc(all, func(a, b *model.Ingress) int {
		if a.Older(b) {
			return -1
		}
		return 1
	})
	host = strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(host, ":80")), ".")
	for _, is := range []func(rule string) bool{
		func(rule string) bool { return rule != "" && rule == host },
		func(rule string) bool {
			label, rest, ok := strings.Cut(host, ".")
			return ok && label != "" && rule == "*."+rest
		},
		func(rule string) bool { return rule == "" },
	} {
		if s, known := oracleOfHost(all, is, path); known {
			return s
		}
	}
	return "404"
}

func oracleOfHost(all []*model.Ingress, is func(string) bool, path string) (service string, known bool) {
	best, bestLength, fallback := "", -1, "404"
	for _, i := range all {
		here := len(i.Rules) == 0 && i.Default != nil && is("")
		for _, r := range i.Rules {
			if !is(r.Host) {
				continue
			}
			here = true
			for _, p := range r.Paths {
				if n := oracleMatch(p, path); n > bestLength {
					best, bestLength = p.Backend.Service, n
				}
			}
		}
		if known = known || here; here && i.Default != nil && fallback == "404" {
			fallback = i.Default.Service
		}
	}
	if bestLength >= 0 {
		return best, true
	}
	return fallback, known
}

// oracleMatch is how well a path matches, -1 for not at all: the number of elements, and an exact one best of all.
func oracleMatch(p model.IngressPath, path string) int {
	if p.Type == model.PathExact {
		if p.Path == path {
			return 1000
		}
		return -1
	}
	elements := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '/' }) }
	want, have := elements(p.Path), elements(path)
	if len(want) > len(have) || !slices.Equal(want, have[:len(want)]) {
		return -1
	}
	return len(want)
}

func TestLookUpIsWhatTheAPISays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*model.Ingress
		for _, name := range []string{"a", "b", "c", "d"} {
			all = append(all, someIngress(t, name))
		}
		p := New(snapshot(all...))
		for range 20 {
			host, path := askedHosts.Draw(t, "asked host"), somePath(t)
			if got, want := service(p, host, path), oracle(all, host, strings.ReplaceAll(path, "//", "/")); got != want {
				t.Fatalf("host %q path %s goes to %s, want %s\n%s", host, path, got, want, text(p))
			}
			e := p.Explain(host, path, true)
			got := "404"
			if e.Route != nil {
				got = e.Route.Pool.Service.Name
			}
			if got != service(p, host, path) {
				t.Fatalf("host %q path %s: explained as %s\n%s", host, path, got, e)
			}
		}
	})
}

func TestNextIsLikeANewPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := snapshot()
		p := New(s)
		for range 10 {
			s = s.With(func(e *model.Edit) {
				name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")
				switch rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					e.DeleteIngress(model.IngressName{Namespace: "default", Name: name})
				case 1:
					svc := rapid.SampledFrom([]string{"one", "two", "three"}).Draw(t, "service")
					e.SetService(newService(svc, rapid.SampledFrom([]string{"10.244.1.5", "10.244.1.6"}).Draw(t, "address")))
				case 2:
					e.DeleteService(model.ServiceName{Namespace: "default", Name: "one"})
				default:
					e.SetIngress(someIngress(t, name))
				}
			})
			withdrawn := p.Withdraw(p.Next(s))
			p = p.Next(s)
			if got, want := text(p), text(New(s)); got != want {
				t.Fatalf("step by step:\n%s\nat once:\n%s", got, want)
			}
			checkWithdrawn(t, withdrawn, p)
		}
	})
}

// checkWithdrawn: nothing goes where it will not go after Publish, but for pools that are replaced as a whole.
func checkWithdrawn(t *rapid.T, withdrawn, next *Plan) {
	for _, h := range withdrawn.Hosts() {
		n := next.hosts[hostKey(h.Name)]
		h.eachRoute(func(r *Route) {
			if withdrawn.Pool(r.Pool) == nil {
				t.Fatalf("no pool for %s", r)
			}
			if n == nil || r.Default && n.Default == nil || !r.Default && n.exact[r.Path] == nil && n.prefix[r.Path] == nil {
				t.Fatalf("%s is not withdrawn", r)
			}
			pool := next.Pool(r.Pool)
			if pool == nil || len(pool.Backends) == 0 {
				if pool != nil && len(withdrawn.Pool(r.Pool).Backends) > 0 {
					t.Fatalf("backends of %s are not withdrawn", r.Pool)
				}
			}
		})
	}
}
