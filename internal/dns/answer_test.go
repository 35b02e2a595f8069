package dns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"minato/internal/model"
)

// cluster is the world of the tables below.
func cluster() *model.Snapshot {
	s := with(model.Empty(),
		service("kube-system/kube-dns", "10.96.0.10", []string{"dns/udp/53", "dns-tcp/tcp/53", "metrics/tcp/9153"}),
		service("default/web", "10.96.1.1", []string{"http/tcp/80", "https/tcp/443"},
			ready("10.244.1.5", "http/tcp/8080"), unready("10.244.1.6", "http/tcp/8080")),
		service("default/plain", "10.96.1.2", []string{"/tcp/80"}),
		service("default/idle", "10.96.1.3", []string{"/tcp/80"}, unready("10.244.1.6", "/tcp/80")),
		service("default/dual", "10.96.1.4 fd00:10::4", []string{"http/tcp/80"}),
		service("default/six", "fd00:10::6", []string{"http/tcp/80"}),
		service("default/db", "None", []string{"sql/tcp/3306"},
			called("db-0", ready("10.244.1.7", "sql/tcp/3306")), called("db-1", ready("10.244.2.7", "sql/tcp/3306")),
			called("db-2", unready("10.244.3.7", "sql/tcp/3306"))),
		service("default/peers", "None", nil, ready("10.244.1.8", ""), ready("fd00:20::8", ""), ready("2001:db8::", "")),
		service("default/empty", "None", []string{"http/tcp/80"}, unready("10.244.1.6", "http/tcp/80")),
		service("other/web", "10.96.2.1", []string{"http/tcp/80"}, ready("10.244.1.5", "http/tcp/8080")),
		service("other/manual", "None", []string{"http/tcp/80"}, ready("192.0.2.80", "http/tcp/80")),
		external("default/out", "www.Example.com."),
		external("default/alias", "web.default.svc.cluster.local"),
		external("default/podalias", "10-244-1-5.default.pod.cluster.local"),
		external("default/broken", "nosuch.default.svc.cluster.local"),
		external("default/ping", "pong.default.svc.cluster.local"),
		external("default/pong", "ping.default.svc.cluster.local"),
		external("default/self", "self.default.svc.cluster.local"),
		external("default/hop", "out.default.svc.cluster.local"),
		external("default/address", "192.0.2.1"),
	)
	return s.With(func(e *model.Edit) { e.SetNamespace("bare", true) })
}

type asking struct{ name, qtype, want string }

func checkAnswers(t *testing.T, cases []asking) {
	t.Helper()
	v := tableOf(t, cluster()).View()
	for _, c := range cases {
		name := strings.ReplaceAll(c.name, "~", "cluster.local.")
		m, a := ask(t, v, name, mdns.StringToType[c.qtype], 4096, 0)
		if got := brief(m, a); got != strings.ReplaceAll(c.want, "~", "cluster.local.") {
			t.Errorf("%s %s\ngot:  %s\nwant: %s", name, c.qtype, strings.ReplaceAll(got, "\n", "\n      "), c.want)
		}
	}
}

func TestClusterIPServices(t *testing.T) {
	checkAnswers(t, []asking{
		{"web.default.svc.~", "A", "web.default.svc.~ 5 A 10.96.1.1"},
		{"WEB.Default.svc.Cluster.LOCAL.", "A", "WEB.Default.svc.Cluster.LOCAL. 5 A 10.96.1.1"},
		{"web.default.svc.~", "AAAA", "NODATA of ~"},
		{"web.default.svc.~", "HTTPS", "NODATA of ~"},
		{"web.default.svc.~", "MX", "NODATA of ~"},
		{"web.default.svc.~", "TXT", "NODATA of ~"},
		{"web.default.svc.~", "CNAME", "NODATA of ~"},
		{"web.default.svc.~", "PTR", "NODATA of ~"},
		{"idle.default.svc.~", "A", "idle.default.svc.~ 5 A 10.96.1.3"},
		{"dual.default.svc.~", "A", "dual.default.svc.~ 5 A 10.96.1.4"},
		{"dual.default.svc.~", "AAAA", "dual.default.svc.~ 5 AAAA fd00:10::4"},
		{"six.default.svc.~", "A", "NODATA of ~"},
		{"six.default.svc.~", "AAAA", "six.default.svc.~ 5 AAAA fd00:10::6"},
		{"web.default.svc.~", "ANY", `web.default.svc.~ 5 HINFO "RFC8482" ""`},
	})
}

func TestEndpointsOfClusterIPServicesHaveNames(t *testing.T) {
	checkAnswers(t, []asking{
		{"10-244-1-5.web.default.svc.~", "A", "10-244-1-5.web.default.svc.~ 5 A 10.244.1.5"},
		{"10-244-1-6.web.default.svc.~", "A", "NXDOMAIN of ~"},
		{"10-244-1-5.web.default.svc.~", "SRV",
			"10-244-1-5.web.default.svc.~ 5 SRV 0 100 8080 10-244-1-5.web.default.svc.~\n+ 10-244-1-5.web.default.svc.~ 5 A 10.244.1.5"},
	})
}

func TestServiceRecords(t *testing.T) {
	checkAnswers(t, []asking{
		{"_http._tcp.web.default.svc.~", "SRV", "_http._tcp.web.default.svc.~ 5 SRV 0 100 80 web.default.svc.~\n+ web.default.svc.~ 5 A 10.96.1.1"},
		{"_http._tcp.web.default.svc.~", "A", "_http._tcp.web.default.svc.~ 5 A 10.96.1.1"},
		{"_http._udp.web.default.svc.~", "SRV", "NXDOMAIN of ~"},
		{"_nosuch._tcp.web.default.svc.~", "SRV", "NXDOMAIN of ~"},
		{"_tcp.web.default.svc.~", "A", "NODATA of ~"},
		{"_udp.web.default.svc.~", "A", "NXDOMAIN of ~"},
		{"web.default.svc.~", "SRV", "web.default.svc.~ 5 SRV 0 50 80 web.default.svc.~\nweb.default.svc.~ 5 SRV 0 50 443 web.default.svc.~\n" +
			"+ web.default.svc.~ 5 A 10.96.1.1"},
		{"plain.default.svc.~", "SRV", "plain.default.svc.~ 5 SRV 0 100 80 plain.default.svc.~\n+ plain.default.svc.~ 5 A 10.96.1.2"},
		// Two ports with one number are one record, which CoreDNS weighs as two.
		{"kube-dns.kube-system.svc.~", "SRV", "kube-dns.kube-system.svc.~ 5 SRV 0 33 53 kube-dns.kube-system.svc.~\n" +
			"kube-dns.kube-system.svc.~ 5 SRV 0 33 9153 kube-dns.kube-system.svc.~\n+ kube-dns.kube-system.svc.~ 5 A 10.96.0.10"},
		{"_http._tcp.dual.default.svc.~", "SRV", "_http._tcp.dual.default.svc.~ 5 SRV 0 50 80 dual.default.svc.~\n" +
			"+ dual.default.svc.~ 5 A 10.96.1.4\n+ dual.default.svc.~ 5 AAAA fd00:10::4"},
		// Without underscores, as CoreDNS takes it too.
		{"http.tcp.web.default.svc.~", "A", "http.tcp.web.default.svc.~ 5 A 10.96.1.1"},
		{"http._tcp.web.default.svc.~", "SRV", "http._tcp.web.default.svc.~ 5 SRV 0 100 80 web.default.svc.~\n+ web.default.svc.~ 5 A 10.96.1.1"},
		{"http.sctp.web.default.svc.~", "A", "NXDOMAIN of ~"},
		{"out.default.svc.~", "SRV", "NODATA of ~"},
	})
}

func TestHeadlessServices(t *testing.T) {
	checkAnswers(t, []asking{
		{"db.default.svc.~", "A", "db.default.svc.~ 5 A 10.244.1.7\ndb.default.svc.~ 5 A 10.244.2.7"},
		{"db-0.db.default.svc.~", "A", "db-0.db.default.svc.~ 5 A 10.244.1.7"},
		{"db-2.db.default.svc.~", "A", "NXDOMAIN of ~"},
		{"10-244-1-7.db.default.svc.~", "A", "NXDOMAIN of ~"},
		{"_sql._tcp.db.default.svc.~", "SRV", "_sql._tcp.db.default.svc.~ 5 SRV 0 50 3306 db-0.db.default.svc.~\n" +
			"_sql._tcp.db.default.svc.~ 5 SRV 0 50 3306 db-1.db.default.svc.~\n" +
			"+ db-0.db.default.svc.~ 5 A 10.244.1.7\n+ db-1.db.default.svc.~ 5 A 10.244.2.7"},
		{"peers.default.svc.~", "A", "peers.default.svc.~ 5 A 10.244.1.8"},
		{"peers.default.svc.~", "AAAA", "peers.default.svc.~ 5 AAAA 2001:db8::\npeers.default.svc.~ 5 AAAA fd00:20::8"},
		{"peers.default.svc.~", "SRV", "NODATA of ~"},
		{"10-244-1-8.peers.default.svc.~", "A", "10-244-1-8.peers.default.svc.~ 5 A 10.244.1.8"},
		{"fd00-20--8.peers.default.svc.~", "AAAA", "fd00-20--8.peers.default.svc.~ 5 AAAA fd00:20::8"},
		{"2001-db8--0.peers.default.svc.~", "AAAA", "2001-db8--0.peers.default.svc.~ 5 AAAA 2001:db8::"},
		{"empty.default.svc.~", "A", "NXDOMAIN of ~"},
	})
}

func TestReverseNames(t *testing.T) {
	checkAnswers(t, []asking{
		{"1.1.96.10.in-addr.arpa.", "PTR", "1.1.96.10.in-addr.arpa. 5 PTR web.default.svc.~"},
		{"5.1.244.10.in-addr.arpa.", "PTR", "5.1.244.10.in-addr.arpa. 5 PTR 10-244-1-5.web.other.svc.~\n" +
			"5.1.244.10.in-addr.arpa. 5 PTR 10-244-1-5.web.default.svc.~"},
		{"7.1.244.10.in-addr.arpa.", "PTR", "7.1.244.10.in-addr.arpa. 5 PTR db-0.db.default.svc.~"},
		{"6.1.244.10.in-addr.arpa.", "PTR", "NXDOMAIN of 244.10.in-addr.arpa."},
		{"9.9.111.10.in-addr.arpa.", "PTR", "NXDOMAIN of 111.10.in-addr.arpa."},
		{"1.1.96.10.in-addr.arpa.", "A", "NODATA of 96.10.in-addr.arpa."},
		{"1.96.10.in-addr.arpa.", "PTR", "NODATA of 96.10.in-addr.arpa."},
		{"96.10.in-addr.arpa.", "NS", "NODATA of 96.10.in-addr.arpa."},
		{"x.1.1.96.10.in-addr.arpa.", "PTR", "NXDOMAIN of 96.10.in-addr.arpa."},
		{"x.96.10.in-addr.arpa.", "PTR", "NXDOMAIN of 96.10.in-addr.arpa."},
		{reverseText("fd00:11::4"), "PTR", "FOREIGN"},
		{reverseText("fd00:10::4"), "PTR", reverseText("fd00:10::4") + " 5 PTR dual.default.svc.~"},
		{reverseText("fd00:10::5"), "PTR", "NXDOMAIN of " + reverseText("fd00:10::5")[10:]},
		// Outside our ranges we answer what we know and leave the rest to others.
		{"80.2.0.192.in-addr.arpa.", "PTR", "80.2.0.192.in-addr.arpa. 5 PTR 192-0-2-80.manual.other.svc.~"},
		{"80.2.0.192.in-addr.arpa.", "A", "FOREIGN"},
		{"81.2.0.192.in-addr.arpa.", "PTR", "FOREIGN"},
		{"112.10.in-addr.arpa.", "PTR", "FOREIGN"},
		{"10.in-addr.arpa.", "PTR", "FOREIGN"},
	})
}

func reverseText(a string) string { return text(reverseName(netip.MustParseAddr(a))) }

func TestExternalNames(t *testing.T) {
	checkAnswers(t, []asking{
		{"out.default.svc.~", "A", "out.default.svc.~ 5 CNAME www.example.com.\nchase www.example.com."},
		{"out.default.svc.~", "CNAME", "out.default.svc.~ 5 CNAME www.example.com."},
		{"out.default.svc.~", "TXT", "NODATA of ~"},
		{"_http._tcp.out.default.svc.~", "SRV", "NXDOMAIN of ~"},
		{"x.out.default.svc.~", "A", "NXDOMAIN of ~"},
		{"hop.default.svc.~", "A", "hop.default.svc.~ 5 CNAME out.default.svc.~\nout.default.svc.~ 5 CNAME www.example.com.\nchase www.example.com."},
		{"alias.default.svc.~", "A", "alias.default.svc.~ 5 CNAME web.default.svc.~\nweb.default.svc.~ 5 A 10.96.1.1"},
		{"alias.default.svc.~", "AAAA", "NODATA of ~"},
		{"podalias.default.svc.~", "A", "podalias.default.svc.~ 5 CNAME 10-244-1-5.default.pod.~\n10-244-1-5.default.pod.~ 5 A 10.244.1.5"},
		{"broken.default.svc.~", "A", "NODATA of ~"},
		{"ping.default.svc.~", "A", "NODATA of ~"},
		{"self.default.svc.~", "A", "NODATA of ~"},
		{"self.default.svc.~", "CNAME", "self.default.svc.~ 5 CNAME self.default.svc.~"},
		{"address.default.svc.~", "A", "NXDOMAIN of ~"},
	})
}

func TestPodNames(t *testing.T) {
	checkAnswers(t, []asking{
		{"10-244-1-5.default.pod.~", "A", "10-244-1-5.default.pod.~ 5 A 10.244.1.5"},
		{"10-244-1-5.default.pod.~", "AAAA", "NODATA of ~"},
		{"10-244-1-5.bare.pod.~", "A", "10-244-1-5.bare.pod.~ 5 A 10.244.1.5"},
		{"fd00--1.default.pod.~", "AAAA", "fd00--1.default.pod.~ 5 AAAA fd00::1"},
		{"10-244-1-5.nosuch.pod.~", "A", "NXDOMAIN of ~"},
		{"10-244-1-256.default.pod.~", "A", "NXDOMAIN of ~"},
		{"10-244-1.default.pod.~", "A", "NXDOMAIN of ~"},
		{"10-244-1-5-6.default.pod.~", "A", "NXDOMAIN of ~"},
		{"mypod.default.pod.~", "A", "NXDOMAIN of ~"},
		{"x.10-244-1-5.default.pod.~", "A", "NXDOMAIN of ~"},
	})
}

func TestNamesThatExistWithoutRecords(t *testing.T) {
	checkAnswers(t, []asking{
		{"~", "A", "NODATA of ~"},
		{"svc.~", "A", "NODATA of ~"},
		{"pod.~", "A", "NODATA of ~"},
		{"default.svc.~", "A", "NODATA of ~"},
		{"default.pod.~", "A", "NODATA of ~"},
		{"bare.svc.~", "A", "NODATA of ~"},
		{"nosuch.svc.~", "A", "NXDOMAIN of ~"},
		{"web.nosuch.svc.~", "A", "NXDOMAIN of ~"},
		{"nosuch.default.svc.~", "A", "NXDOMAIN of ~"},
		{"nosuch.default.svc.~", "TYPE999", "NXDOMAIN of ~"},
		{"foo.~", "A", "NXDOMAIN of ~"},
		{"www.example.com.default.svc.~", "A", "NXDOMAIN of ~"},
		{"www.example.com.", "A", "FOREIGN"},
		{"local.", "A", "FOREIGN"},
		{"xcluster.local.", "A", "FOREIGN"},
		{".", "NS", "FOREIGN"},
	})
}

func TestTheZoneItself(t *testing.T) {
	checkAnswers(t, []asking{
		{"~", "SOA", fmt.Sprintf("~ 5 SOA ns.dns.~ hostmaster.~ %d 7200 1800 86400 5", cluster().Revision)},
		{"~", "NS", "~ 5 NS kube-dns.kube-system.svc.~\n+ kube-dns.kube-system.svc.~ 5 A 10.96.0.10"},
		{"ns.dns.~", "A", "ns.dns.~ 5 A 10.96.0.10"},
		{"dns-version.~", "TXT", `dns-version.~ 28800 TXT "1.1.0"`},
	})
	v := tableOf(t, without(cluster(), "kube-system/kube-dns")).View()
	if m, a := ask(t, v, "cluster.local.", mdns.TypeNS, 512, 0); brief(m, a) != "cluster.local. 5 NS ns.dns.cluster.local.\n+ ns.dns.cluster.local. 5 A 10.96.0.10" {
		t.Errorf("without a DNS Service the zone names its server itself, got:\n%s", brief(m, a))
	}
}

// A label can hold a dot, and two names that print alike must not be taken for each other.
func TestADotInsideALabelIsNotASeparator(t *testing.T) {
	v := tableOf(t, cluster()).View()
	if m, a := ask(t, v, `web\.default.svc.cluster.local.`, mdns.TypeA, 512, 0); brief(m, a) != "NXDOMAIN of cluster.local." {
		t.Errorf("got %s", brief(m, a))
	}
}

func TestBeforeTheFirstCompleteSnapshotNothingIsDenied(t *testing.T) {
	s := model.Empty().With(func(e *model.Edit) {
		e.SetService(service("default/web", "10.96.1.1", []string{"http/tcp/80"}))
	})
	v := tableOf(t, s).View()
	for name, want := range map[string]string{
		"web.default.svc.cluster.local.":    "web.default.svc.cluster.local. 5 A 10.96.1.1",
		"nosuch.default.svc.cluster.local.": "SERVFAIL",
		"x.y.z.cluster.local.":              "SERVFAIL",
		"svc.cluster.local.":                "NODATA of cluster.local.",
	} {
		if m, a := ask(t, v, name, mdns.TypeA, 512, 0); brief(m, a) != want {
			t.Errorf("%s: got %s, want %s", name, brief(m, a), want)
		}
	}
}

func many(n int) *model.Service {
	var b []model.Backend
	for i := range n {
		b = append(b, ready(fmt.Sprintf("10.244.%d.%d", i/250, i%250), "http/tcp/80"), ready(fmt.Sprintf("fd00:20::%x", i+1), "http/tcp/80"))
	}
	return service("default/many", "None", []string{"http/tcp/80"}, b...)
}

func TestWhatDoesNotFitIsMarkedTruncated(t *testing.T) {
	v := tableOf(t, with(model.Empty(), many(200))).View()
	for _, c := range []struct {
		qtype     uint16
		limit     int
		answers   int
		truncated bool
	}{
		{mdns.TypeA, 512, 29, true}, {mdns.TypeA, 1232, 74, true}, {mdns.TypeA, 65535, 200, false},
		{mdns.TypeAAAA, 512, 16, true}, {mdns.TypeAAAA, 65535, 200, false},
		{mdns.TypeSRV, 512, 7, true}, {mdns.TypeSRV, 65535, 400, false},
	} {
		m, a := ask(t, v, "many.default.svc.cluster.local.", c.qtype, c.limit, 0)
		if len(m.Answer) != c.answers || a.Truncated != c.truncated {
			t.Errorf("%s in %d bytes: %d records, truncated %t; want %d, %t", mdns.TypeToString[c.qtype], c.limit, len(m.Answer), a.Truncated, c.answers, c.truncated)
		}
	}
}

func TestAdditionalRecordsAreLeftOutBeforeAnswers(t *testing.T) {
	v := tableOf(t, with(model.Empty(), many(1))).View()
	for limit := 512; ; limit-- {
		m, a := ask(t, v, "many.default.svc.cluster.local.", mdns.TypeSRV, limit, 0)
		if len(m.Answer) != 2 || a.Truncated {
			t.Fatalf("in %d bytes: %d answers, %d additional records, truncated %t", limit, len(m.Answer), len(m.Extra), a.Truncated)
		}
		if len(m.Extra) == 0 {
			break
		}
	}
}

// More endpoints than a message can name: the message is full and says that it is not everything.
func TestAHugeHeadlessServiceFillsAMessage(t *testing.T) {
	v := tableOf(t, with(model.Empty(), many(5000))).View()
	for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypeSRV} {
		m, a := ask(t, v, "_http._tcp.many.default.svc.cluster.local.", qtype, 65535, 3)
		if !a.Truncated || len(m.Answer) < 500 {
			t.Errorf("%s: %d answers, truncated %t", mdns.TypeToString[qtype], len(m.Answer), a.Truncated)
		}
	}
}

func TestAddressesTakeTurns(t *testing.T) {
	v := tableOf(t, with(model.Empty(), many(3))).View()
	first := map[string]int{}
	for turn := range uint32(30) {
		m, _ := ask(t, v, "many.default.svc.cluster.local.", mdns.TypeA, 512, turn)
		if len(m.Answer) != 3 {
			t.Fatalf("got %d addresses, want all 3", len(m.Answer))
		}
		first[m.Answer[0].(*mdns.A).A.String()]++
	}
	for a, n := range first {
		if n != 10 {
			t.Errorf("%s came first %d times of 30, want 10", a, n)
		}
	}
}

func TestNearAddressesComeFirstAndTakeTurns(t *testing.T) {
	svc := service("default/near", "None", nil)
	svc.PreferSameZone = true
	for i, zone := range []string{"a", "b", "a", "b"} {
		b := ready(fmt.Sprintf("10.244.0.%d", i+1), "")
		b.Zone = zone
		svc.Slices[0].Backends = append(svc.Slices[0].Backends, b)
	}
	s := with(model.Empty(), svc)
	table := tableOf(t, s.On(&model.Node{Name: "n1", Zone: "b"}))
	order := func(turn uint32) (out []string) {
		m, _ := ask(t, table.View(), "near.default.svc.cluster.local.", mdns.TypeA, 512, turn)
		for _, rr := range m.Answer {
			out = append(out, rr.(*mdns.A).A.String()[9:])
		}
		return out
	}
	if got := fmt.Sprint(order(0), order(1)); got != "[2 4 1 3] [4 2 3 1]" {
		t.Errorf("from zone b: %s", got)
	}
	if err := table.Publish(t.Context(), s.On(&model.Node{Name: "n1", Zone: "a"}), nil); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(order(0)); got != "[1 3 2 4]" {
		t.Errorf("after the node moved to zone a: %s", got)
	}
}
