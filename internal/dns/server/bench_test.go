package server

import (
	"testing"

	mdns "github.com/miekg/dns"
)

// BenchmarkRespond is everything between reading a packet and writing the reply.
func BenchmarkRespond(b *testing.B) {
	s, err := New(Config{Table: testTable(b, world()), Addrs: testZone.Addrs, Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ kind, name string }{
		{"ClusterIP", "web.default.svc.cluster.local."},
		{"headless of 120", "many.default.svc.cluster.local."},
		{"NXDOMAIN by search list", "www.example.com.default.svc.cluster.local."},
	} {
		b.Run(c.kind, func(b *testing.B) {
			r := responder{s: s}
			q := pack(b, question(c.name, mdns.TypeA).SetEdns0(1232, false))
			out := make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				out = r.respond(out, q, maxUDP)
			}
		})
	}
}
