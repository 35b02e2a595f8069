package server

import (
	"runtime"
	"strconv"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Names and labels are CoreDNS 1.15's, so that dashboards and alerts made for it go on working; those that begin with
// coredns_forward_ are of its older versions too, which the usual dashboards still ask for.
var (
	requestsTotal  = desc("dns_requests_total", "Questions, by zone, protocol, family and type.", "server", "zone", "view", "proto", "family", "type")
	responsesTotal = desc("dns_responses_total", "Replies, by zone and response code.", "server", "zone", "view", "rcode", "plugin")
	requestSeconds = desc("dns_request_duration_seconds", "Time from reading a question to writing the reply.", "server", "zone", "view")
	requestBytes   = desc("dns_request_size_bytes", "Size of questions.", "server", "zone", "view", "proto")
	responseBytes  = desc("dns_response_size_bytes", "Size of replies.", "server", "zone", "view", "proto")
	doTotal        = desc("dns_do_requests_total", "Questions that ask for DNSSEC.", "server", "zone", "view")

	cacheTotal   = desc("cache_requests_total", "Questions for which the cache of other zones was looked at.", "server", "zones", "view")
	cacheHits    = desc("cache_hits_total", "Questions that the cache answered.", "server", "type", "zones", "view")
	cacheMisses  = desc("cache_misses_total", "Questions that went to an upstream, or waited for one that had gone.", "server", "zones", "view")
	cacheEntries = desc("cache_entries", "Answers of upstreams that are kept.", "server", "type", "zones", "view")
	cacheRenewed = desc("cache_prefetch_total", "Answers that were renewed before their time was over.", "server", "zones", "view")
	cacheStale   = desc("cache_served_stale_total", "Replies with an answer whose time was over.", "server", "zones", "view")

	proxySeconds   = desc("proxy_request_duration_seconds", "Time that upstreams need.", "proxy_name", "to", "rcode")
	proxyFailures  = desc("proxy_healthcheck_failures_total", "Questions that an upstream did not answer.", "proxy_name", "to")
	forwardTotal   = desc("forward_requests_total", "Questions to upstreams.", "to")
	forwardReplies = desc("forward_responses_total", "Answers of upstreams, by response code.", "to", "rcode")
	forwardSeconds = desc("forward_request_duration_seconds", "Time that upstreams need.", "to", "rcode")
	forwardShed    = desc("forward_max_concurrent_rejects_total", "Questions for which there was no room.")
	forwardBroken  = desc("forward_healthcheck_broken_total", "Whether no upstream is usable now.")

	hostsEntries  = desc("hosts_entries", "Names in the list of hosts.")
	pluginEnabled = desc("plugin_enabled", "What CoreDNS calls the parts that are in use.", "server", "zone", "view", "name")
	buildInfo     = desc("build_info", "The program that answers in CoreDNS's place.", "version", "revision", "goversion")
	panicsTotal   = desc("panics_total", "Always 0: a panic ends the program.")
	refusedTotal  = prometheus.NewDesc("minato_dns_refused_clients_total", "Questions of clients outside the cluster.", nil, nil)
)

// Describe is for prometheus.Collector.
func (s *Server) Describe(out chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(s, out)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("coredns_"+name, help, labels, nil)
}

// Collect sums the counters of all sockets, for prometheus.Collector.
func (s *Server) Collect(out chan<- prometheus.Metric) {
	s.countersMu.Lock()
	all := s.counters
	s.countersMu.Unlock()
	c := collection{out: out, server: "dns://:" + strconv.Itoa(int(s.cfg.Port))}
	for z, name := range [2]string{s.cfg.Table.Domain(), "."} {
		c.zone(all, z, name)
		c.gauge(pluginEnabled, 1, c.server, name, "", [2]string{"kubernetes", "forward"}[z])
	}
	c.cache(all, s)
	set := s.settings.Load()
	broken := 0.0
	for _, r := range set.routes {
		if ok, _ := r.us.usable(); !ok {
			broken = 1
		}
		for _, u := range *r.us.list.Load() {
			c.upstream(u)
		}
	}
	c.gauge(forwardBroken, broken)
	if set.hosts != nil {
		c.gauge(hostsEntries, float64(len(set.hosts.addrs)))
	}
	c.gauge(buildInfo, 1, "minato", "", runtime.Version())
	c.counter(panicsTotal, 0)
	c.counter(refusedTotal, s.refused.Load())
}

// collection sends metrics of one server.
type collection struct {
	out    chan<- prometheus.Metric
	server string
}

func (c *collection) counter(d *prometheus.Desc, n uint64, labels ...string) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (c *collection) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c *collection) tally(d *prometheus.Desc, t *tally, labels ...string) {
	if t.count > 0 {
		c.out <- prometheus.MustNewConstHistogram(d, uint64(t.count), t.sum, t.buckets, labels...)
	}
}

// zone sends what is counted by zone.
func (c *collection) zone(all []*counters, z int, name string) {
	types, codes := map[[3]string]uint64{}, map[string]uint64{}
	var duration tally
	asked, replied := map[string]*tally{"udp": {}, "tcp": {}}, map[string]*tally{"udp": {}, "tcp": {}}
	do := uint64(0)
	for _, s := range all {
		from := &s.zones[z]
		for i := range countedTypes {
			if n := from.types[i].Load(); n > 0 {
				types[[3]string{s.proto, s.family, typeLabel(countedTypes[i])}] += n
			}
		}
		for code := range from.rcodes {
			if n := from.rcodes[code].Load(); n > 0 {
				codes[mdns.RcodeToString[code]] += n
			}
		}
		do += from.do.Load()
		duration.add(&from.duration, durationBuckets, 1e-9)
		asked[s.proto].add(&from.asked, sizeBuckets, 1)
		replied[s.proto].add(&from.replied, sizeBuckets, 1)
	}
	for l, n := range types {
		c.counter(requestsTotal, n, c.server, name, "", l[0], l[1], l[2])
	}
	for code, n := range codes {
		c.counter(responsesTotal, n, c.server, name, "", code, [2]string{"kubernetes", "forward"}[z])
	}
	c.counter(doTotal, do, c.server, name, "")
	c.tally(requestSeconds, &duration, c.server, name, "")
	for _, proto := range []string{"udp", "tcp"} {
		c.tally(requestBytes, asked[proto], c.server, name, "", proto)
		c.tally(responseBytes, replied[proto], c.server, name, "", proto)
	}
}

func (c *collection) cache(all []*counters, s *Server) {
	var asked, missed uint64
	var hits [2]uint64
	for _, k := range all {
		asked += k.cacheAsked.Load()
		missed += k.cacheMissed.Load()
		for i := range hits {
			hits[i] += k.cacheHits[i].Load()
		}
	}
	c.counter(cacheTotal, asked, c.server, ".", "")
	c.counter(cacheMisses, missed, c.server, ".", "")
	entries := s.cached.kinds()
	for i, kind := range [2]string{"success", "denial"} {
		c.counter(cacheHits, hits[i], c.server, kind, ".", "")
		c.gauge(cacheEntries, float64(entries[i]), c.server, kind, ".", "")
	}
	var renewed, stale, shed uint64
	if f := s.forward.Load(); f != nil {
		renewed, stale, shed = f.renewed.Load(), f.stale.Load(), f.shed.Load()
	}
	c.counter(cacheRenewed, renewed, c.server, ".", "")
	c.counter(cacheStale, stale, c.server, ".", "")
	c.counter(forwardShed, shed)
}

func (c *collection) upstream(u *upstream) {
	to := u.addr.String()
	c.counter(forwardTotal, u.counts.asked.Load(), to)
	c.counter(proxyFailures, u.counts.failed.Load(), "forward", to)
	for code := range u.counts.rcodes {
		var t tally
		if t.add(&u.counts.rcodes[code], durationBuckets, 1e-9); t.count > 0 {
			name := mdns.RcodeToString[code]
			c.counter(forwardReplies, uint64(t.count), to, name)
			c.tally(proxySeconds, &t, "forward", to, name)
			c.tally(forwardSeconds, &t, to, name)
		}
	}
}

func typeLabel(t uint16) string {
	if t == 0 {
		return "other"
	}
	return mdns.TypeToString[t]
}
