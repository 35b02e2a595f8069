package server

import (
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func TestTemplates(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	_, at := configured(t, Settings{
		Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}}},
		Templates: []Template{
			{Zones: []string{"ip.example"}, Type: "A", Match: []string{`^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)\.ip\.example\.$`},
				Answers:    []string{"{{ .Name }} 60 IN A 192.0.{{ .Group.a }}.{{ .Group.b }}"},
				Additional: []string{"ns.{{ .Zone }} 60 IN A 192.0.2.53"}},
			{Zones: []string{"through.example"}, Type: "A", Match: []string{`^x\.`}, Answers: []string{"{{ .Name }} 1 IN A 192.0.2.9"}, Fallthrough: []string{"."}},
			{Type: "AAAA", Zones: []string{"v4only.example"}, Authority: []string{"v4only.example. 60 IN SOA ns.v4only.example. a.v4only.example. 1 2 3 4 5"}},
			{Type: "ANY", Zones: []string{"gone.example"}, Rcode: "NXDOMAIN"},
			{Type: "A", Zones: []string{"broken.example"}, Answers: []string{"{{ .Name }} no record"}},
			{Type: "A", Zones: []string{"missing.example"}, Answers: []string{"{{ .Name }} 1 IN A {{ .Group.nosuch }}"}},
		},
	})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"ip-2-7.ip.example.", mdns.TypeA, "NOERROR | ip-2-7.ip.example. 60 IN A 192.0.2.7"},
		{"other.ip.example.", mdns.TypeA, "NXDOMAIN"},
		{"x.through.example.", mdns.TypeA, "NOERROR | x.through.example. 1 IN A 192.0.2.9"},
		{"y.through.example.", mdns.TypeA, "NOERROR | y.through.example. 60 IN A 192.0.2.1"},
		{"www.v4only.example.", mdns.TypeAAAA, "NOERROR"},
		{"www.v4only.example.", mdns.TypeA, "NOERROR | www.v4only.example. 60 IN A 192.0.2.1"},
		{"a.gone.example.", mdns.TypeTXT, "NXDOMAIN"},
		{"a.broken.example.", mdns.TypeA, "SERVFAIL"},
		{"a.missing.example.", mdns.TypeA, "SERVFAIL"},
		{"www.example.com.", mdns.TypeA, "NOERROR | www.example.com. 60 IN A 192.0.2.1"},
		{"web.default.svc.cluster.local.", mdns.TypeA, "NOERROR | web.default.svc.cluster.local. 5 IN A 10.96.1.1"},
	} {
		if got := briefly(exchange(t, "udp", at, question(c.name, c.qtype))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	m := exchange(t, "udp", at, question("ip-2-7.IP.example.", mdns.TypeA).SetEdns0(1232, false))
	if len(m.Extra) != 2 || m.Extra[0].Header().Name != "ns.ip.example." || m.IsEdns0() == nil || !m.Authoritative {
		t.Errorf("additional records and EDNS: %v", m)
	}
	m = exchange(t, "udp", at, question("www.v4only.example.", mdns.TypeAAAA))
	if len(m.Ns) != 1 {
		t.Errorf("authority: %v", m)
	}
}

func TestNamesInAnswersAreRewritten(t *testing.T) {
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		for _, text := range []string{q.Question[0].Name + " 60 IN CNAME real.inside.example.", "real.inside.example. 60 IN A 192.0.2.1"} {
			rr, err := mdns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})
	regex := func(s string) Match { return Match{MatchRegex, s} }
	_, at := configured(t, Settings{
		Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}}},
		Rewrites: []Rewrite{{Match: regex(`(.*)\.outside\.example`), To: "{1}.inside.example", Answers: []AnswerRewrite{
			{Match: regex(`(.*)\.inside\.example`), To: "{1}.outside.example"}, {Value: true, Match: regex(`(.*)\.inside\.example`), To: "{1}.outside.example"},
		}}},
	})
	const want = "NOERROR | www.outside.example. 60 IN CNAME real.outside.example. | real.outside.example. 60 IN A 192.0.2.1"
	if got := briefly(exchange(t, "udp", at, question("www.outside.example.", mdns.TypeA))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNamesThatAForwardExceptsGoTheNextWay(t *testing.T) {
	general, stub := upstreamServer(t, answering("192.0.2.1", 60)), upstreamServer(t, answering("192.0.2.2", 60))
	_, at := configured(t, Settings{Forward: []Forward{
		{Zone: ".", Upstreams: []netip.AddrPort{general.addr}, Except: []string{"secret.example"}},
		{Zone: "corp.example", Upstreams: []netip.AddrPort{stub.addr}, Except: []string{"www.corp.example"}},
	}})
	for name, want := range map[string]string{
		"a.corp.example.": "NOERROR | a.corp.example. 60 IN A 192.0.2.2", "www.corp.example.": "NOERROR | www.corp.example. 60 IN A 192.0.2.1", "a.secret.example.": "REFUSED",
	} {
		if got := briefly(exchange(t, "udp", at, question(name, mdns.TypeA))); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestThePolicySaysWhoIsAskedFirst(t *testing.T) {
	for policy, both := range map[Policy]bool{Sequential: false, RoundRobin: true, Random: true} {
		a, b := upstreamServer(t, answering("192.0.2.1", 0)), upstreamServer(t, answering("192.0.2.2", 0))
		s, at := configured(t, Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{a.addr, b.addr}, Policy: policy}}})
		first := map[netip.AddrPort]bool{}
		for range 64 { // with Random, all the same once in 2^63
			first[s.settings.Load().routes[0].us.order(time.Now())[0].addr] = true
		}
		if len(first) == 2 != both {
			t.Errorf("policy %d asked %v first", policy, first)
		}
		if m := exchange(t, "udp", at, question("www.example.com.", mdns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("policy %d: %v", policy, m)
		}
	}
}
