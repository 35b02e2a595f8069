package corefile

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"minato/internal/dns"
	"minato/internal/dns/server"
	"minato/internal/model"
)

// values compares addresses as such.
var values = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})

var discard = slog.New(slog.DiscardHandler)

var host = Host{Domain: "cluster.local", Resolvers: server.Forward{Zone: ".", ResolvConf: "/host/resolv.conf"}}

// kubeadm is the Corefile of kubeadm 1.36 (cmd/kubeadm/app/phases/addons/dns/manifests.go).
const kubeadm = `.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
`

func parse(t *testing.T, text string, custom map[string]string) *Config {
	t.Helper()
	c, err := Parse(text, custom, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheCorefileOfKubeadm(t *testing.T) {
	want := &Config{
		Cluster: dns.Options{Pods: dns.PodsInsecure, TTL: 30},
		Server: server.Settings{
			Forward: []server.Forward{{Zone: ".", ResolvConf: "/host/resolv.conf", MaxConcurrent: 1000}},
			Kept:    30 * time.Second, Denied: 30 * time.Second, LogErrors: true, Lameduck: 5 * time.Second,
		},
	}
	if diff := cmp.Diff(want, parse(t, kubeadm, nil), values); diff != "" {
		t.Error(diff)
	}
}

func TestEverythingThatIsSupported(t *testing.T) {
	c := parse(t, `
# comment
. {
    log
    kubernetes cluster.local {
        pods verified
        endpoint_pod_names
        noendpoints
        namespaces a b
        namespaces c
        ignore empty_service
        ttl 0
    }
    hosts {
        192.0.2.7 Db.internal db
        2001:db8::7 db.internal
        ttl 60
        fallthrough
    }
    rewrite name shop.example.com web.default.svc.cluster.local
    rewrite stop name suffix .a.example .b.example answer auto
    rewrite name prefix x- y-
    rewrite continue name substring foo bar
    rewrite type ANY HINFO
    rewrite stop {
        name regex (.*)\.stage\.example {1}.default.svc.cluster.local
        answer name (.*)\.default\.svc\.cluster\.local {1}.stage.example
        answer value (.*)\.v {1}.w
    }
    rewrite name regex a b answer name b a
    rewrite ttl exact slow.example 30-600
    rewrite ttl fast.example 5
    rewrite rcode suffix .quiet.example NXDOMAIN NOERROR
    template IN A stage.example {
        match "^ip-(?P<a>[0-9]*)\.stage\.example\.$"
        answer "{{ .Name }} 60 IN TXT \"{{ .Group.a }}\""
        rcode NOERROR
        fallthrough
    }
    template ANY AAAA {
        rcode NXDOMAIN
    }
    cache {
        success 1000 20
        denial 1000 0
    }
    forward . 192.0.2.1 192.0.2.2:5353 dns://[2001:db8::1]:53 {
        force_tcp
        except internal.example a.internal.example
        policy round_robin
        max_concurrent 1000
    }
    forward secure.example tls://192.0.2.3 tls://192.0.2.4:8853 {
        tls_servername dns.example
    }
}
corp.example:53 corp.test {
    errors
    cache 30
    forward . 192.0.2.53
}
`, nil)
	addr, port := netip.MustParseAddr, netip.MustParseAddrPort
	regex := func(s string) server.Match { return server.Match{Kind: server.MatchRegex, Text: s} }
	want := &Config{
		Cluster: dns.Options{Pods: dns.PodsVerified, EndpointPodNames: true, NoEndpoints: true, Namespaces: []string{"a", "b", "c"}, IgnoreEmptyService: true, TTL: -1},
		Server: server.Settings{
			Forward: []server.Forward{
				{Zone: ".", Upstreams: []netip.AddrPort{port("192.0.2.1:53"), port("192.0.2.2:5353"), port("[2001:db8::1]:53")}, TCP: true,
					Except: []string{"internal.example", "a.internal.example"}, Policy: server.RoundRobin, MaxConcurrent: 1000},
				{Zone: "secure.example", Upstreams: []netip.AddrPort{port("192.0.2.3:853"), port("192.0.2.4:8853")}, TLS: &server.TLS{ServerName: "dns.example"}},
				{Zone: "corp.example", Upstreams: []netip.AddrPort{port("192.0.2.53:53")}},
				{Zone: "corp.test", Upstreams: []netip.AddrPort{port("192.0.2.53:53")}},
			},
			Hosts: &server.Hosts{TTL: 60, Fallthrough: []string{"."}, Addrs: map[string][]netip.Addr{
				"db.internal": {addr("192.0.2.7"), addr("2001:db8::7")}, "db": {addr("192.0.2.7")},
			}},
			Rewrites: []server.Rewrite{
				{Match: server.Match{Text: "shop.example.com"}, To: "web.default.svc.cluster.local"},
				{Match: server.Match{Kind: server.MatchSuffix, Text: ".a.example"}, To: ".b.example", Answers: []server.AnswerRewrite{
					{Match: server.Match{Kind: server.MatchSuffix, Text: ".b.example"}, To: ".a.example"},
					{Value: true, Match: server.Match{Kind: server.MatchSuffix, Text: ".b.example"}, To: ".a.example"},
				}},
				{Match: server.Match{Kind: server.MatchPrefix, Text: "x-"}, To: "y-"},
				{Match: server.Match{Kind: server.MatchSubstring, Text: "foo"}, To: "bar", Continue: true},
				{Field: server.RewriteType, From: "ANY", To: "HINFO"},
				{Match: regex(`(.*)\.stage\.example`), To: "{1}.default.svc.cluster.local", Answers: []server.AnswerRewrite{
					{Match: regex(`(.*)\.default\.svc\.cluster\.local`), To: "{1}.stage.example"},
					{Value: true, Match: regex(`(.*)\.v`), To: "{1}.w"},
				}},
				{Match: regex("a"), To: "b", Answers: []server.AnswerRewrite{{Match: regex("b"), To: "a"}}},
				{Field: server.RewriteTTL, Match: server.Match{Text: "slow.example"}, TTL: [2]int{30, 600}},
				{Field: server.RewriteTTL, Match: server.Match{Text: "fast.example"}, TTL: [2]int{5, 5}},
				{Field: server.RewriteRcode, Match: server.Match{Kind: server.MatchSuffix, Text: ".quiet.example"}, From: "NXDOMAIN", To: "NOERROR"},
			},
			Templates: []server.Template{
				{Zones: []string{"stage.example"}, Type: "A", Match: []string{`^ip-(?P<a>[0-9]*)\.stage\.example\.$`},
					Answers: []string{`{{ .Name }} 60 IN TXT "{{ .Group.a }}"`}, Rcode: "NOERROR", Fallthrough: []string{"."}},
				{Zones: []string{"."}, Type: "AAAA", Rcode: "NXDOMAIN"},
			},
			Kept: 20 * time.Second, Denied: -1, LogQuestions: true, LogErrors: true,
		},
	}
	if diff := cmp.Diff(want, c, values); diff != "" {
		t.Error(diff)
	}
}

func TestFilesOfCorednsCustom(t *testing.T) {
	custom := map[string]string{
		"log.override": "log\n",
		"stub.server":  "corp.example:53 {\n  forward . 192.0.2.53\n}\n",
		"other":        "rubbish {{{\n",
	}
	for name, text := range map[string]string{
		"imported":       ". {\n  import custom/*.override\n  forward . 192.0.2.1\n}\nimport custom/*.server\n",
		"without import": ". {\n  import /etc/coredns/custom/*.override\n  forward . 192.0.2.1\n}\n",
	} {
		c := parse(t, text, custom)
		if len(c.Server.Forward) != 2 || c.Server.Forward[1].Zone != "corp.example" || !c.Server.LogQuestions || len(c.Warnings) > 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestFilesAndSnippetsOfTheConfigMaps(t *testing.T) {
	c := parse(t, `
(common) {
    errors
    hosts /etc/coredns/NodeHosts {
        192.0.2.9 inline
        fallthrough
    }
}
. {
    import common
    forward . 192.0.2.1
}
`, map[string]string{"NodeHosts": "192.0.2.7 node1 # the first\nrubbish\n\n192.0.2.8 node2 two\n"})
	addr := netip.MustParseAddr
	want := map[string][]netip.Addr{"node1": {addr("192.0.2.7")}, "node2": {addr("192.0.2.8")}, "two": {addr("192.0.2.8")}, "inline": {addr("192.0.2.9")}}
	if diff := cmp.Diff(want, c.Server.Hosts.Addrs, values); diff != "" || !c.Server.LogErrors || len(c.Warnings) > 0 {
		t.Errorf("%s\n%+v", diff, c)
	}
}

func TestWhatIsNotSupportedIsAWarningThatSaysWhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{". {\n  acl {\n    block\n  }\n}\n", `Corefile, line 2: directive "acl" is not supported and is left out`},
		{". {\n  kubernetes cluster.local {\n    zonal\n  }\n}\n", `line 3: option "zonal" of kubernetes`},
		{". {\n  kubernetes other.domain\n}\n", "the cluster domain is cluster.local"},
		{". {\n  forward . tls://192.0.2.1 192.0.2.2\n}\n", "and 192.0.2.2 is left out"},
		{". {\n  forward . https://192.0.2.1 192.0.2.2\n}\n", "https://192.0.2.1 is left out"},
		{". {\n  forward . tls://192.0.2.2 {\n    tls /etc/ca.pem\n  }\n}\n", "file /etc/ca.pem is in none of the ConfigMaps"},
		{". {\n  forward . 192.0.2.2 {\n    unheard of\n  }\n}\n", `option "unheard" of forward`},
		{". {\n  rewrite edns0 local set 0xffee 0x61\n}\n", "rewrite edns0 is not supported"},
		{". {\n  rewrite name glob a b\n}\n", "rewrite name glob is not supported"},
		{". {\n  template CH TXT\n  errors\n}\n", "names of class IN only"},
		{". {\n  hosts /etc/myhosts\n}\n", "/etc/myhosts is in none of the ConfigMaps"},
		{". {\n  errors\n}\nstub.example {\n  file db.example\n}\n", `"file" is not supported in the server block of stub.example`},
	} {
		got := parse(t, c.text, nil).Warnings
		if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%q: warnings %q, want one with %q", c.text, got, c.want)
		}
	}
}

func TestWhatCannotBeReadIsAnErrorThatSaysWhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no server block"},
		{". {\n  forward . 192.0.2.1 {\n    max_concurrent -1\n  }\n}\n", "max_concurrent takes a number from 0"},
		{". {\n  errors\n", "line 1: a { that is never closed"},
		{"}\n", "line 1: a } that closes nothing"},
		{". {\n  log \"x\n}\n", "line 2: a quotation mark"},
		{"forward . 192.0.2.1\n", "line 1: \"forward . 192.0.2.1\" is not a server block"},
		{". {\n  forward . resolver.example\n}\n", `line 2: forward: "resolver.example" is not an address`},
		{". {\n  forward .\n}\n", "line 2: forward takes"},
		{". {\n  forward . https://192.0.2.1\n}\n", "nobody is left to be asked"},
		{". {\n  kubernetes cluster.local {\n    ttl 4000\n  }\n}\n", "line 3: ttl takes a number from 0 to 3600"},
		{". {\n  kubernetes cluster.local {\n    pods maybe\n  }\n}\n", "pods is one of"},
		{". {\n  hosts {\n    name 192.0.2.1\n  }\n}\n", "line 3: hosts: a line has an address"},
		{". {\n  rewrite name regex ( b\n}\n", "missing closing )"},
		{". {\n  rewrite ttl exact a 9-5\n}\n", "line 2: rewrite ttl takes seconds"},
		{". {\n  rewrite name regex a b answer auto\n}\n", "line 2: rewrite"},
		{". {\n  rewrite {\n    name a b\n    name c d\n  }\n}\n", "line 4: rewrite"},
		{". {\n  template IN NOSUCH\n}\n", "no type of records"},
		{". {\n  template IN A {\n    answer {{\n  }\n}\n", "template"},
		{". {\n  forward . 192.0.2.1 {\n    policy best\n  }\n}\n", "line 3: policy is one of"},
		{"tls://. {\n  errors\n}\n", "only plain DNS is served"},
		{"a..b {\n  errors\n}\n", "not a domain name"},
	} {
		if _, err := Parse(c.text, nil, host); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
	}
}

type fake struct {
	options  dns.Options
	settings server.Settings
	times    int
}

func (f *fake) SetOptions(o dns.Options)          { f.options = o }
func (f *fake) Configure(s server.Settings) error { f.settings = s; f.times++; return nil }

func TestABrokenCorefileLeavesTheLastGoodOneInForce(t *testing.T) {
	var f fake
	defaults := server.Settings{Forward: []server.Forward{host.Resolvers}}
	a := &Applier{Host: host, Table: &f, Server: &f, Defaults: defaults, Log: discard}
	world := func(text string) *model.Snapshot {
		return model.Empty().With(func(e *model.Edit) {
			if e.SetDNS(nil); text != "" {
				e.SetDNS(&model.DNSConfig{Corefile: text})
			}
		})
	}
	publish := func(s *model.Snapshot) error { return a.Publish(context.Background(), s, nil) }
	if err := publish(world(kubeadm)); err != nil || f.options.TTL != 30 {
		t.Fatalf("options %+v (%v)", f.options, err)
	}
	broken := world(". {\n")
	if err := publish(broken); err != nil || !strings.HasPrefix(a.Problem(), "mend ConfigMap kube-system/coredns") {
		t.Errorf("problem %q (%v)", a.Problem(), err)
	}
	if f.options.TTL != 30 || f.times != 1 {
		t.Errorf("after a broken one: %+v, configured %d times", f.options, f.times)
	}
	if err := publish(world("")); a.Problem() != "" || err != nil || f.options.TTL != 0 || f.options.Pods != dns.PodsInsecure || f.settings.Forward[0].ResolvConf != host.Resolvers.ResolvConf {
		t.Errorf("without a Corefile: %+v %+v (%v)", f.options, f.settings, err)
	}
}

func TestWhatWasInForceBeforeTheProcessStaysUntilTheAPISaysOtherwise(t *testing.T) {
	var f fake
	a := &Applier{Host: host, Table: &f, Server: &f, Log: discard}
	before := &model.DNSConfig{Corefile: kubeadm}
	a.Restore(before)
	publish := func(s *model.Snapshot) {
		if err := a.Publish(context.Background(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
	reads := func(text string) *model.Snapshot {
		return model.Empty().With(func(e *model.Edit) { e.SetDNS(&model.DNSConfig{Corefile: text}) })
	}
	publish(model.Empty().With(func(e *model.Edit) { e.SetComplete() }))
	publish(reads(kubeadm))
	if f.times != 1 || f.options.TTL != 30 {
		t.Errorf("configured %d times, options %+v: want once, by what was restored", f.times, f.options)
	}
	publish(reads(". {\n"))
	if f.times != 1 || a.InForce() != before || a.Problem() == "" {
		t.Errorf("a broken Corefile: configured %d times, in force %+v, problem %q", f.times, a.InForce(), a.Problem())
	}
	publish(model.Empty().With(func(e *model.Edit) { e.SetDNS(nil) }))
	if f.times != 2 || a.InForce() != nil || a.Problem() != "" {
		t.Errorf("no Corefile: configured %d times, in force %+v, problem %q", f.times, a.InForce(), a.Problem())
	}
}

func FuzzParse(f *testing.F) {
	f.Add(kubeadm)
	f.Add(". {\n  hosts {\n 1.2.3.4 a\n}\nrewrite name a b\n}\n")
	f.Fuzz(func(_ *testing.T, text string) {
		Parse(text, map[string]string{"a.server": text}, host) //nolint:errcheck // it must not panic
	})
}
