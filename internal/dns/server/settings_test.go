package server

import (
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

func configured(t *testing.T, c Settings) (*Server, string) {
	t.Helper()
	s, at := startServer(t, Config{Table: testTable(t, world())})
	if err := s.Configure(c); err != nil {
		t.Fatal(err)
	}
	return s, at
}

// briefly is a reply in one line: its code when that is none, else its answers.
func briefly(m *mdns.Msg) string {
	out := mdns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		out += " | " + strings.Join(strings.Fields(rr.String()), " ")
	}
	return out
}

func TestNamesOfAStubDomainGoToItsUpstream(t *testing.T) {
	general, stub := upstreamServer(t, answering("192.0.2.1", 60)), upstreamServer(t, answering("192.0.2.2", 60))
	_, at := configured(t, Settings{Forward: []Forward{
		{Zone: ".", Upstreams: []netip.AddrPort{general.addr}}, {Zone: "Corp.Example.", Upstreams: []netip.AddrPort{stub.addr}},
	}})
	for name, want := range map[string]string{
		"www.example.com.": "192.0.2.1", "corp.example.": "192.0.2.2", "a.CORP.example.": "192.0.2.2", "xcorp.example.": "192.0.2.1",
	} {
		wantA(t, exchange(t, "udp", at, question(name, mdns.TypeA)), want)
	}
}

func TestNewSettingsCountAtOnceAndFormerAnswersDoNot(t *testing.T) {
	a, b := upstreamServer(t, answering("192.0.2.1", 60)), upstreamServer(t, answering("192.0.2.2", 60))
	s, at := configured(t, Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{a.addr}}}})
	wantA(t, exchange(t, "udp", at, question("www.example.com.", mdns.TypeA)), "192.0.2.1")
	if err := s.Configure(Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{b.addr}}}}); err != nil {
		t.Fatal(err)
	}
	wantA(t, exchange(t, "udp", at, question("www.example.com.", mdns.TypeA)), "192.0.2.2")
	if err := s.Configure(Settings{}); err != nil {
		t.Fatal(err)
	}
	if m := exchange(t, "udp", at, question("www.example.com.", mdns.TypeA)); m.Rcode != mdns.RcodeRefused || m.RecursionAvailable {
		t.Errorf("without upstreams: %v", m)
	}
}

func TestSettingsThatCannotBeUsedChangeNothing(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	s, at := configured(t, Settings{Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}}}})
	for _, bad := range []Settings{
		{Forward: []Forward{{Zone: "a..b"}}}, {Rewrites: []Rewrite{{Field: RewriteType, From: "A", To: "NOSUCH"}}},
		{Rewrites: []Rewrite{{Match: Match{MatchRegex, "("}}}}, {Templates: []Template{{Type: "A", Answers: []string{"{{"}}}},
		{Rewrites: []Rewrite{{Field: RewriteRcode, From: "NXDOMAIN", To: "NOSUCH"}}}, {Forward: []Forward{{Zone: ".", Except: []string{"a..b"}}}},
		{Hosts: &Hosts{Addrs: map[string][]netip.Addr{"a..b": nil}}},
	} {
		if s.Configure(bad) == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	wantA(t, exchange(t, "udp", at, question("www.example.com.", mdns.TypeA)), "192.0.2.1")
}

func TestHosts(t *testing.T) {
	addr := netip.MustParseAddr
	u := upstreamServer(t, answering("192.0.2.1", 60))
	hosts := Hosts{TTL: 3600, Addrs: map[string][]netip.Addr{"Db.internal": {addr("192.0.2.7"), addr("2001:db8::7")}}, Fallthrough: []string{"."}}
	s, at := configured(t, Settings{Hosts: &hosts, Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}}}})
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"DB.internal.", mdns.TypeA, "NOERROR | DB.internal. 3600 IN A 192.0.2.7"},
		{"db.internal.", mdns.TypeAAAA, "NOERROR | db.internal. 3600 IN AAAA 2001:db8::7"},
		{"db.internal.", mdns.TypeMX, "NOERROR"},
		{"7.2.0.192.in-addr.arpa.", mdns.TypePTR, "NOERROR | 7.2.0.192.in-addr.arpa. 3600 IN PTR db.internal."},
		{"www.example.com.", mdns.TypeA, "NOERROR | www.example.com. 60 IN A 192.0.2.1"},
		{"web.default.svc.cluster.local.", mdns.TypeA, "NOERROR | web.default.svc.cluster.local. 5 IN A 10.96.1.1"},
	} {
		if got := briefly(exchange(t, "udp", at, question(c.name, c.qtype))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	hosts.Fallthrough = []string{"cluster.local"}
	if err := s.Configure(Settings{Hosts: &hosts}); err != nil {
		t.Fatal(err)
	}
	if got := briefly(exchange(t, "udp", at, question("www.example.com.", mdns.TypeA))); got != "SERVFAIL" {
		t.Errorf("a name that is not listed and must not fall through: %s", got)
	}
	if got := briefly(exchange(t, "udp", at, question("web.default.svc.cluster.local.", mdns.TypeA))); !strings.HasPrefix(got, "NOERROR |") {
		t.Errorf("a name of the zone that falls through: %s", got)
	}
}

func TestRewrites(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	_, at := configured(t, Settings{
		Forward: []Forward{{Zone: ".", Upstreams: []netip.AddrPort{u.addr}}},
		Rewrites: []Rewrite{
			{Match: Match{MatchExact, "shop.example.com"}, To: "web.default.svc.cluster.local"},
			{Match: Match{MatchSuffix, ".cluster.example"}, To: ".cluster.local"},
			{Match: Match{MatchPrefix, "old-"}, To: "new-"},
			{Match: Match{MatchSubstring, "-mid-"}, To: "-middle-"},
			{Match: Match{MatchRegex, `^(.*)\.(.*)\.stage\.example\.com\.$`}, To: "{1}.{2}.svc.cluster.local"},
			{Field: RewriteTTL, Match: Match{MatchSuffix, ".slow.example"}, TTL: [2]int{300, 600}},
			{Field: RewriteTTL, Match: Match{MatchExact, "fast.example"}, TTL: [2]int{0, 7}, Continue: true},
			{Match: Match{MatchExact, "fast.example"}, To: "www.example.com"},
			{Field: RewriteRcode, Match: Match{MatchPrefix, "quiet."}, From: "NXDOMAIN", To: "NOERROR", Continue: true},
			{Match: Match{MatchExact, "quiet.example"}, To: "nothere.default.svc.cluster.local"},
			{Field: RewriteType, From: "ANY", To: "HINFO"},
		},
	})
	for _, network := range []string{"udp", "tcp"} {
		for name, want := range map[string]string{
			"Shop.Example.com.":                    "NOERROR | Shop.Example.com. 5 IN A 10.96.1.1",
			"web.default.svc.cluster.example.":     "NOERROR | web.default.svc.cluster.example. 5 IN A 10.96.1.1",
			"nothere.default.svc.cluster.example.": "NXDOMAIN",
			"old-name.example.com.":                "NOERROR | old-name.example.com. 60 IN A 192.0.2.1",
			"a-mid-b.example.com.":                 "NOERROR | a-mid-b.example.com. 60 IN A 192.0.2.1",
			"WEB.default.stage.example.com.":       "NOERROR | WEB.default.stage.example.com. 5 IN A 10.96.1.1",
			"www.slow.example.":                    "NOERROR | www.slow.example. 300 IN A 192.0.2.1",
			"fast.example.":                        "NOERROR | fast.example. 7 IN A 192.0.2.1",
			"quiet.example.":                       "NOERROR",
			"web.default.svc.cluster.local.":       "NOERROR | web.default.svc.cluster.local. 5 IN A 10.96.1.1",
		} {
			if got := briefly(exchange(t, network, at, question(name, mdns.TypeA))); got != want {
				t.Errorf("%s over %s: got %s, want %s", name, network, got, want)
			}
		}
	}
	m := exchange(t, "udp", at, question("many.default.svc.cluster.example.", mdns.TypeA))
	if m.Compress = true; !m.Truncated || m.Len() > 512 || len(m.Answer) == 0 {
		t.Errorf("a large reply under another name: %d answers in %d bytes, truncated %t", len(m.Answer), m.Len(), m.Truncated)
	}
}

func TestOnlyClientsOfTheClusterAreAnswered(t *testing.T) {
	s, err := New(Config{Table: testTable(t, world()), Addrs: testZone.Addrs, Log: discard, Clients: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]bool{
		"10.244.3.4": true, "127.0.0.1": true, "10.96.0.10": true, "10.245.0.1": false, "192.0.2.1": false, "2001:db8::1": false,
	} {
		if got := s.admits(netip.MustParseAddr(client)); got != want {
			t.Errorf("%s is admitted: %t", client, got)
		}
	}
	r := responder{s: s, count: s.newCounters("udp", false)}
	m := new(mdns.Msg)
	if err := m.Unpack(r.refuse(nil, pack(t, web()))); err != nil || m.Rcode != mdns.RcodeRefused || len(m.Answer)+len(m.Ns)+len(m.Extra) != 0 {
		t.Errorf("another client got %v (%v), want REFUSED and nothing else", m, err)
	}
}
