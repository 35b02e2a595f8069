package server

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
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
coredns_cache_entries{server="dns://PORT",type="denial",view="",zones="."} 0
coredns_cache_entries{server="dns://PORT",type="success",view="",zones="."} 1
# HELP coredns_cache_hits_total Questions that the cache answered.
# TYPE coredns_cache_hits_total counter
coredns_cache_hits_total{server="dns://PORT",type="denial",view="",zones="."} 0
coredns_cache_hits_total{server="dns://PORT",type="success",view="",zones="."} 1
# HELP coredns_cache_misses_total Questions that went to an upstream, or waited for one that had gone.
# TYPE coredns_cache_misses_total counter
coredns_cache_misses_total{server="dns://PORT",view="",zones="."} 1
# HELP coredns_cache_requests_total Questions for which the cache of other zones was looked at.
# TYPE coredns_cache_requests_total counter
coredns_cache_requests_total{server="dns://PORT",view="",zones="."} 2
# HELP coredns_dns_requests_total Questions, by zone, protocol, family and type.
# TYPE coredns_dns_requests_total counter
coredns_dns_requests_total{family="1",proto="tcp",server="dns://PORT",type="TXT",view="",zone="cluster.local."} 1
coredns_dns_requests_total{family="1",proto="udp",server="dns://PORT",type="A",view="",zone="."} 2
coredns_dns_requests_total{family="1",proto="udp",server="dns://PORT",type="A",view="",zone="cluster.local."} 2
# HELP coredns_dns_responses_total Replies, by zone and response code.
# TYPE coredns_dns_responses_total counter
coredns_dns_responses_total{plugin="forward",rcode="NOERROR",server="dns://PORT",view="",zone="."} 2
coredns_dns_responses_total{plugin="kubernetes",rcode="NOERROR",server="dns://PORT",view="",zone="cluster.local."} 2
coredns_dns_responses_total{plugin="kubernetes",rcode="NXDOMAIN",server="dns://PORT",view="",zone="cluster.local."} 1
# HELP coredns_forward_requests_total Questions to upstreams.
# TYPE coredns_forward_requests_total counter
coredns_forward_requests_total{to="UPSTREAM"} 1
# HELP coredns_forward_responses_total Answers of upstreams, by response code.
# TYPE coredns_forward_responses_total counter
coredns_forward_responses_total{rcode="NOERROR",to="UPSTREAM"} 1
`, "PORT", server)
	want = strings.ReplaceAll(want, "UPSTREAM", u.addr.String())
	err := testutil.CollectAndCompare(s, strings.NewReader(want), "coredns_cache_entries", "coredns_cache_hits_total", "coredns_cache_misses_total",
		"coredns_cache_requests_total", "coredns_dns_requests_total", "coredns_dns_responses_total", "coredns_forward_requests_total", "coredns_forward_responses_total")
	if err != nil {
		t.Error(err)
	}
}

func TestDurationsAndSizesAreCounted(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	for _, network := range []string{"udp", "tcp"} {
		exchange(t, network, at, web())
		exchange(t, network, at, question(network+".example.com.", mdns.TypeA))
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{ // a reply over UDP is counted when it is sent, a moment before the client has it or after
		"coredns_dns_request_duration_seconds": 4, "coredns_dns_request_size_bytes": 4, "coredns_dns_response_size_bytes": 4,
		"coredns_proxy_request_duration_seconds": 2, "coredns_forward_request_duration_seconds": 2,
	}
	await(t, "all histograms to count every question", func() bool {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if h := m.GetHistogram(); h != nil {
					got[f.GetName()] += h.GetSampleCount()
				}
			}
		}
		return maps.Equal(got, want)
	})
}
