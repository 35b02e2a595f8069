package server

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"
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
			r := responder{s: s, count: s.newCounters("udp", false)}
			q := pack(b, question(c.name, mdns.TypeA).SetEdns0(1232, false))
			out := make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				out = r.respond(out, q, maxUDP)
			}
		})
	}
}

// BenchmarkServer asks a running server over loopback with dnsperf and reports the processor time of the server alone:
// that of this process, which does nothing else. It asks for 2 seconds whatever b.N is.
func BenchmarkServer(b *testing.B) {
	dnsperf, err := exec.LookPath("dnsperf")
	if err != nil {
		b.Skip("dnsperf is not installed (Debian package dnsperf)")
	}
	for _, c := range []struct{ kind, names string }{
		{"ClusterIP", "web.default.svc.cluster.local A\n_http._tcp.web.default.svc.cluster.local SRV\n"},
		{"NXDOMAIN", "www.example.com.default.svc.cluster.local A\nwww.example.com.svc.cluster.local AAAA\n"},
		{"forwarded, cached", "www.example.com A\n"},
	} {
		b.Run(c.kind, func(b *testing.B) {
			u := upstreamServer(b, answering("192.0.2.1", 60))
			host, port, _ := net.SplitHostPort(forwarding(b, u))
			file := filepath.Join(b.TempDir(), "names")
			if err := os.WriteFile(file, []byte(c.names), 0o644); err != nil {
				b.Fatal(err)
			}
			before := processorTime(b)
			out, err := exec.Command(dnsperf, "-s", host, "-p", port, "-d", file, "-l", "2", "-c", "8", "-q", "400").Output()
			used := processorTime(b) - before
			if err != nil {
				b.Fatal(err)
			}
			var completed float64
			for line := range strings.Lines(string(out)) {
				if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Queries completed:"); ok {
					fmt.Sscan(rest, &completed)
				}
			}
			b.ReportMetric(float64(used.Nanoseconds())/completed, "cpu-ns/query")
			b.ReportMetric(completed/2, "queries/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
