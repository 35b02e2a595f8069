package dns

import (
	"fmt"
	"strings"
	"testing"

	"minato/internal/model"
)

func TestExplain(t *testing.T) {
	lonely := service("default/lonely", "None", []string{"http/tcp/80"})
	lonely.Selector = "app=lonely"
	s := with(cluster(), lonely)
	for _, c := range []struct{ name, want string }{
		{"web.default.svc.~", ""},
		{"_http._tcp.web.default.svc.~", ""},
		{"db-0.db.default.svc.~", ""},
		{"10-1-2-3.default.pod.~", ""},
		{"www.example.com", ""},
		{"~", "~ is the cluster's domain itself and has no address"},
		{"svc.~", "svc.~ is where the names of the cluster begin and has no address"},
		{"default.svc.~", "default.svc.~ stands for a namespace and has no address"},
		{"web.default.~", "the names of the cluster are SERVICE.NAMESPACE.svc.~; did you mean web.default.svc.~?"},
		{"kube-dns.default.svc.~", "Service kube-dns exists in namespace kube-system, not in default; ask for kube-dns.kube-system.svc.~"},
		{"wbe.default.svc.~", "there is no Service default/wbe; did you mean web.default.svc.~?"},
		{"web.defalt.svc.~", `there is no namespace "defalt"; did you mean namespace default?`},
		{"other.web.svc.~", `there is no namespace "web"; the Service comes first: web.other.svc.~`},
		{"empty.default.svc.~", "headless Service default/empty has no ready endpoint: 1 not ready; publishNotReadyAddresses: true names endpoints before they are ready"},
		{"lonely.default.svc.~", "headless Service default/lonely has no endpoint, by selector app=lonely"},
		{"db-2.db.default.svc.~", `no ready endpoint of Service default/db is called "db-2"; 10.244.3.7 is there, and is not ready`},
		{"d-0.db.default.svc.~", `no ready endpoint of Service default/db is called "d-0"; did you mean db-0?`},
		{"_grpc._tcp.web.default.svc.~", "Service default/web has no port called _grpc._tcp; it has _http._tcp; it has _https._tcp"},
		{"_http._tcp.plain.default.svc.~", "Service default/plain has no port called _http._tcp; its ports have no names"},
		{"address.default.svc.~", `the externalName of Service default/address, "192.0.2.1", is an address: DNS has aliases to names only; ` +
			"use a Service without a selector and an EndpointSlice with the address"},
		{"broken.default.svc.~", "Service default/broken is an alias of nosuch.default.svc.~, and there is no Service default/nosuch"},
		{"x.out.default.svc.~", "Service default/out is an alias (ExternalName): there are no names below it"},
		{"mypod.default.pod.~", "names of pods are their addresses with dashes, as in 10-244-1-5.default.pod.~; " +
			"a pod has a name of its own below a headless Service: set its hostname and subdomain, or use a StatefulSet"},
		{"web..svc.~", `"web..svc.~" is not a domain name: a label is empty or longer than 63 bytes`},
	} {
		name := strings.ReplaceAll(c.name, "~", "cluster.local")
		r, ok := Explain(s, testZone, name)
		got := strings.Join(append([]string{r.Text}, r.Advice...), "; ")
		if want := strings.ReplaceAll(c.want, "~", "cluster.local"); got != want || ok != (want != "") {
			t.Errorf("%s\ngot:  %s\nwant: %s", name, got, want)
		}
	}
}

// A reason is given exactly for those own names that give no address and no alias.
func TestExplainAgreesWithTheTable(t *testing.T) {
	v := tableOf(t, cluster()).View()
	names := []string{"nosuch.default.svc.cluster.local", "10-244-1-5.web.default.svc.cluster.local", "_tcp.web.default.svc.cluster.local"}
	for s := range cluster().Services() {
		names = append(names, s.Name.Name+"."+s.Name.Namespace+".svc.cluster.local")
	}
	for _, name := range names {
		r, why := Explain(cluster(), testZone, name)
		got := v.Resolve(name)
		known := len(got.Addrs) > 0 || got.CNAME != ""
		if known == why {
			t.Errorf("%s: the table says %+v, the explanation %+v", name, got, r)
		}
	}
}

func TestResolve(t *testing.T) {
	v := tableOf(t, cluster()).View()
	for name, want := range map[string]string{
		"web.default.svc.cluster.local":    "{true false  [10.96.1.1]}",
		"WEB.default.svc.cluster.local.":   "{true false  [10.96.1.1]}",
		"dual.default.svc.cluster.local":   "{true false  [10.96.1.4 fd00:10::4]}",
		"out.default.svc.cluster.local":    "{true true www.example.com []}",
		"alias.default.svc.cluster.local":  "{true false web.default.svc.cluster.local [10.96.1.1]}",
		"default.svc.cluster.local":        "{true false  []}",
		"nosuch.default.svc.cluster.local": "{false false  []}",
		"www.example.com":                  "{false true  []}",
		"a..b":                             "{false false  []}",
	} {
		if got := fmt.Sprint(v.Resolve(name)); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := tableOf(t, model.Empty()).View().Resolve("web.default.svc.cluster.local"); got.Exists {
		t.Errorf("before anything was read: %v", got)
	}
}

func TestSimilar(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"web", "wbe", true}, {"web", "webs", true}, {"web", "eb", true}, {"web", "wep", true}, {"web", "db", false}, {"web", "web", false},
		{"nginx", "nginks", true}, {"nginx", "ngixn", true}, {"front", "backend", false}, {"", "a", true}, {"a", "bcd", false},
	} {
		if Similar(c.a, c.b) != c.want || Similar(c.b, c.a) != c.want {
			t.Errorf("%q and %q: want %t", c.a, c.b, c.want)
		}
	}
}
