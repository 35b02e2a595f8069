package oracle

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/kubernetes/object"
	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/dns"
	"minato/internal/model"
)

const plugin = "github.com/coredns/coredns/plugin/kubernetes"

// table is one of the plugin's own: cases, and the objects that they are about.
type table struct {
	Name      string
	Cases     []tableCase
	Services  []*object.Service
	Endpoints []*object.Endpoints
}

type tableCase struct {
	Qname                       string
	Qtype                       uint16
	Rcode                       int
	Answer, Ns, Extra, Upstream []string
	Truncated                   bool
}

// tables has the plugin's test package, as it is in the module, write its tables down. For the go command the package
// is one of ours: it lays nothing over the module cache.
func tables(t *testing.T) (all []table) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", plugin).Output()
	if err != nil {
		t.Fatalf("find the plugin's source: %v", err)
	}
	source, tmp := strings.TrimSpace(string(dir)), t.TempDir()
	reverse, err := os.ReadFile(filepath.Join(source, "reverse_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	const loop = "\tctx := context.TODO()\n\tfor i, tc := range tests {"
	if strings.Count(string(reverse), loop) != 1 {
		t.Fatal("TestReverse of the plugin is not as it was: read its cases in another way")
	}
	changed := strings.Replace(string(reverse), loop, "\tdumpedReverse = tests\n"+loop, 1)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dump := filepath.Join(here, "testdata", "dump_test.go.txt")
	write(t, filepath.Join(tmp, "reverse_test.go"), []byte(changed))
	replace := map[string]string{}
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, filepath.Join(tmp, "reverse_test.go"), dump) {
		replace[filepath.Join(here, "plugin", strings.TrimSuffix(filepath.Base(f), ".txt"))] = f
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tmp, "overlay.json"), overlay)
	binary := filepath.Join(tmp, "plugin.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-o", binary, "-overlay", filepath.Join(tmp, "overlay.json"), "./plugin")
	run := exec.Command(binary, "-test.run", "^TestDump$")
	run.Env = append(os.Environ(), "DUMP_TO="+filepath.Join(tmp, "tables.json"))
	for _, c := range []*exec.Cmd{build, run} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	b, err := os.ReadFile(filepath.Join(tmp, "tables.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// world turns CoreDNS's objects back into those of the API.
func (tb *table) world() *world {
	w := &world{namespaces: []string{"testns", "podns", "svcns", "unexposedns", "kube-system"}, pods: []pod{{"podns", "10.240.0.1"}}}
	for _, o := range tb.Services {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}}
		s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIPs, s.Spec.ClusterIP = o.Type, o.ExternalName, o.ClusterIPs, ""
		if len(o.ClusterIPs) > 0 {
			s.Spec.ClusterIP = o.ClusterIPs[0]
		}
		for _, p := range o.Ports {
			p.Protocol = corev1.Protocol(strings.ToUpper(string(p.Protocol)))
			s.Spec.Ports = append(s.Spec.Ports, p)
		}
		w.services = append(w.services, s)
	}
	for _, o := range tb.Endpoints {
		if name := strings.TrimSuffix(o.Index, "."+o.Namespace); !w.has(o.Namespace, name) { // its Service is not in the table
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: name}}
			s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
			w.services = append(w.services, s)
		}
		w.slices = append(w.slices, slicesOf(o)...)
	}
	return w
}

func (w *world) has(namespace, name string) bool {
	return slices.ContainsFunc(w.services, func(s *corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
}

// slicesOf makes a slice for each family of a subset.
func slicesOf(o *object.Endpoints) (out []*discoveryv1.EndpointSlice) {
	service := strings.TrimSuffix(o.Index, "."+o.Namespace)
	for _, subset := range o.Subsets {
		for family, kind := range map[string]discoveryv1.AddressType{".": discoveryv1.AddressTypeIPv4, ":": discoveryv1.AddressTypeIPv6} {
			s := &discoveryv1.EndpointSlice{AddressType: kind, ObjectMeta: metav1.ObjectMeta{
				Namespace: o.Namespace, Name: o.Name + string(kind), Labels: map[string]string{discoveryv1.LabelServiceName: service},
			}}
			for _, p := range subset.Ports {
				if p.Port >= 0 { // -1 stands for no ports
					protocol := corev1.Protocol(strings.ToUpper(p.Protocol))
					s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &p.Port})
				}
			}
			for _, a := range subset.Addresses {
				if strings.Contains(a.IP, family) {
					s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.IP}, Hostname: &a.Hostname})
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// settings are the options under which each table is meant.
var settings = map[string]dns.Options{
	"handler":       {Pods: dns.PodsDisabled, Namespaces: []string{"testns"}},
	"namespaces":    {Pods: dns.PodsDisabled},
	"case":          {Pods: dns.PodsDisabled, IgnoreEmptyService: true},
	"ignore empty":  {Pods: dns.PodsDisabled, IgnoreEmptyService: true},
	"pods disabled": {Pods: dns.PodsDisabled},
	"pods insecure": {Pods: dns.PodsInsecure},
	"pods verified": {Pods: dns.PodsVerified},
	"apex":          {Pods: dns.PodsDisabled},
	"zonal off":     {Pods: dns.PodsDisabled, Namespaces: []string{"testns"}},
	"not synced":    {Pods: dns.PodsDisabled, Namespaces: []string{"testns"}},
	"reverse":       {Pods: dns.PodsDisabled},
	"zonal":         {Pods: dns.PodsDisabled, Namespaces: []string{"testns"}},
	"multicluster":  {Pods: dns.PodsDisabled},
	"k8s_external":  {Pods: dns.PodsDisabled},
	"metadata":      {Pods: dns.PodsInsecure},
}

// foreign are the tables about what minato has not, with the one answer that it has to such names.
var foreign = map[string]struct {
	reason string
	is     func(c *tableCase, want, got *mdns.Msg) bool
}{
	"zonal": {"minato orders answers by zone (trafficDistribution) and has no names for zones", func(c *tableCase, _, got *mdns.Msg) bool {
		return strings.Contains(c.Qname, "._zone.") && got.Rcode == mdns.RcodeNameError
	}},
	"multicluster": {"minato is one cluster: names of endpoints have no label for it", oneCluster},
	"k8s_external": {"minato serves no zone of external addresses", anothersZone("example.com.", "example.org.")},
	"metadata": {"the cases are about what CoreDNS's other plugins are told of a question, not about its answer", func(_ *tableCase, _, got *mdns.Msg) bool {
		return got.Rcode == mdns.RcodeSuccess || got.Rcode == mdns.RcodeNameError
	}},
}

// anothersZone says of names of a zone that an upstream was asked, which knows nothing of them.
func anothersZone(zones ...string) func(*tableCase, *mdns.Msg, *mdns.Msg) bool {
	return func(c *tableCase, _, got *mdns.Msg) bool {
		return slices.ContainsFunc(zones, func(z string) bool { return strings.HasSuffix(c.Qname, z) }) && !got.Authoritative && len(got.Answer) == 0
	}
}

// oneCluster says of names of endpoints that they go without the label of a cluster, here cluster1.
func oneCluster(c *tableCase, want, got *mdns.Msg) bool {
	const label = ".cluster1."
	switch {
	case strings.Contains(c.Qname, label):
		return got.Rcode == mdns.RcodeNameError
	case c.Qtype == mdns.TypeSRV:
		return strings.ReplaceAll(canon(normal(want)), label, ".") == canon(normal(got))
	}
	return want.Rcode == mdns.RcodeNameError && got.Rcode == mdns.RcodeSuccess
}

func TestTheCasesOfCoreDNSsOwnTablesHold(t *testing.T) {
	known, ran, excepted := map[string][]mdns.RR{}, 0, map[string]int{}
	for _, tb := range tables(t) {
		options, ok := settings[tb.Name]
		if !ok {
			t.Errorf("no options are set for table %q", tb.Name)
			continue
		}
		w := tb.world()
		options.PodExists = func(namespace, addr string) bool { return namespace == "podns" && addr == "10.240.0.1" }
		for _, c := range tb.Cases {
			for _, s := range c.Upstream {
				rr := record(s)
				known[rr.Header().Name] = append(known[rr.Header().Name], rr)
			}
		}
		m := newMinatoAsking(t, options, func(q *mdns.Msg) *mdns.Msg { return fromTable(q, known) })
		if tb.Name == "not synced" {
			if err := m.table.Publish(context.Background(), model.Empty(), nil); err != nil {
				t.Fatal(err)
			}
		} else {
			m.become(t, w)
		}
		for _, c := range tb.Cases {
			ran++
			q := new(mdns.Msg).SetQuestion(mdns.Fqdn(c.Qname), c.Qtype)
			got, want := m.ask(t, q, false), c.message(q)
			want.Authoritative = got.Authoritative // the tables do not say
			if canon(normal(want)) == canon(normal(got)) || excuse(q, want, got) != "" || tableExcuse(&c, got) != "" {
				continue
			}
			if f, ok := foreign[tb.Name]; ok && f.is(&c, want, got) {
				excepted[f.reason]++
			} else {
				t.Errorf("table %q, %s\nwanted: %s\ngot:    %s", tb.Name, text(q), canon(normal(want)), canon(normal(got)))
			}
		}
	}
	const all = 123
	if ran < all {
		t.Errorf("%d cases ran, fewer than the %d that there were", ran, all)
	}
	t.Logf("%d cases", ran)
	for reason, n := range excepted {
		t.Logf("%d are answered otherwise: %s", n, reason)
	}
}

// tableExcuse names the cases of the tables that are not ours.
func tableExcuse(c *tableCase, got *mdns.Msg) string {
	switch {
	case c.Truncated:
		return "an upstream's cut answer is asked for over TCP, and then whole"
	case c.Rcode == mdns.RcodeServerFailure && got.Rcode == c.Rcode:
		return "SERVFAIL goes without a SOA record"
	}
	return ""
}

func (c *tableCase) message(q *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg).SetRcode(q, c.Rcode)
	for to, from := range map[*[]mdns.RR][]string{&m.Answer: c.Answer, &m.Ns: c.Ns, &m.Extra: c.Extra} {
		for _, s := range from {
			*to = append(*to, record(s))
		}
	}
	return m
}

// normal takes the TTL away of what is not there: the tables have any.
func normal(m *mdns.Msg) *mdns.Msg {
	m = m.Copy()
	for _, rr := range append(m.Answer, m.Ns...) {
		if soa, ok := rr.(*mdns.SOA); ok {
			soa.Hdr.Ttl, soa.Minttl = 5, 5
		}
	}
	return m
}

func fromTable(q *mdns.Msg, known map[string][]mdns.RR) *mdns.Msg {
	m := new(mdns.Msg).SetReply(q)
	for _, rr := range known[q.Question[0].Name] {
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == mdns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}
