package server

import (
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetricsHaveCoreDNSNames(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	cfg := Config{Table: testTable(t, world()), Upstreams: nil}
	cfg.Upstreams = append(cfg.Upstreams, u.addr)
	s, at := startServer(t, cfg)
	for range 2 {
		exchange(t, "udp", at, web())
		exchange(t, "udp", at, question("www.example.com.", mdns.TypeA))
	}
	exchange(t, "tcp", at, question("nosuch.cluster.local.", mdns.TypeTXT))
	server := strings.TrimPrefix(at, "127.0.0.1")
	want := strings.ReplaceAll(`
# HELP coredns_cache_entries Answers of upstreams that are kept.
# TYPE coredns_cache_entries gauge
coredns_cache_entries{server="dns://PORT"} 1
# HELP coredns_cache_misses_total Questions that went to an upstream, or waited for one that had gone.
# TYPE coredns_cache_misses_total counter
coredns_cache_misses_total{server="dns://PORT"} 1
# HELP coredns_cache_requests_total Questions for which the cache of other zones was looked at.
# TYPE coredns_cache_requests_total counter
coredns_cache_requests_total{server="dns://PORT"} 2
# HELP coredns_dns_requests_total Questions, by zone, protocol, family and type.
# TYPE coredns_dns_requests_total counter
coredns_dns_requests_total{family="1",proto="tcp",server="dns://PORT",type="TXT",zone="cluster.local."} 1
coredns_dns_requests_total{family="1",proto="udp",server="dns://PORT",type="A",zone="."} 2
coredns_dns_requests_total{family="1",proto="udp",server="dns://PORT",type="A",zone="cluster.local."} 2
# HELP coredns_dns_responses_total Replies, by zone and response code.
# TYPE coredns_dns_responses_total counter
coredns_dns_responses_total{rcode="NOERROR",server="dns://PORT",zone="."} 2
coredns_dns_responses_total{rcode="NOERROR",server="dns://PORT",zone="cluster.local."} 2
coredns_dns_responses_total{rcode="NXDOMAIN",server="dns://PORT",zone="cluster.local."} 1
`, "PORT", server)
	if err := testutil.CollectAndCompare(s, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
