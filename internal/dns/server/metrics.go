package server

import (
	"strconv"
	"sync/atomic"

	mdns "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Names and labels are CoreDNS's, so that dashboards made for it go on working.
var (
	requestsTotal = prometheus.NewDesc("coredns_dns_requests_total", "Questions, by zone, protocol, family and type.",
		[]string{"server", "zone", "proto", "family", "type"}, nil)
	responsesTotal = prometheus.NewDesc("coredns_dns_responses_total", "Replies, by zone and response code.",
		[]string{"server", "zone", "rcode"}, nil)
	cacheTotal = prometheus.NewDesc("coredns_cache_requests_total", "Questions for which the cache of other zones was looked at.",
		[]string{"server"}, nil)
	cacheMisses = prometheus.NewDesc("coredns_cache_misses_total", "Questions that went to an upstream, or waited for one that had gone.",
		[]string{"server"}, nil)
	cacheEntries = prometheus.NewDesc("coredns_cache_entries", "Answers of upstreams that are kept.", []string{"server"}, nil)
)

// countedTypes are the types of questions with a counter of their own; the last stands for all others, as in CoreDNS.
var countedTypes = [...]uint16{
	mdns.TypeA, mdns.TypeAAAA, mdns.TypeSRV, mdns.TypePTR, mdns.TypeTXT, mdns.TypeCNAME, mdns.TypeNS, mdns.TypeSOA, mdns.TypeMX,
	mdns.TypeHTTPS, 0,
}

// counters are those of one socket, so that threads do not share them. They may be read while they are written.
type counters struct {
	proto, family string
	zones         [2]struct { // our own, others
		types  [len(countedTypes)]atomic.Uint64
		rcodes [17]atomic.Uint64 // by response code; the last is BADVERS
	}
	cacheAsked, cacheMissed atomic.Uint64
}

const ownZone, otherZone = 0, 1

func (c *counters) question(zone int, qtype uint16) {
	last := len(countedTypes) - 1
	for i, t := range countedTypes[:last] {
		if t == qtype {
			c.zones[zone].types[i].Add(1)
			return
		}
	}
	c.zones[zone].types[last].Add(1)
}

func (c *counters) reply(zone, rcode int) {
	c.zones[zone].rcodes[min(rcode, rcodeBadVersion)].Add(1)
}

// newCounters adds the counters of one more socket.
func (s *Server) newCounters(proto string, ipv6 bool) *counters {
	c := &counters{proto: proto, family: "1"}
	if ipv6 {
		c.family = "2"
	}
	s.countersMu.Lock()
	defer s.countersMu.Unlock()
	s.counters = append(s.counters, c)
	return c
}

// Describe is for prometheus.Collector.
func (s *Server) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsTotal, responsesTotal, cacheTotal, cacheMisses, cacheEntries} {
		out <- d
	}
}

// Collect sums the counters of all sockets, for prometheus.Collector.
func (s *Server) Collect(out chan<- prometheus.Metric) {
	s.countersMu.Lock()
	all := s.counters
	s.countersMu.Unlock()
	server := "dns://:" + strconv.Itoa(int(s.cfg.Port))
	sums := map[*prometheus.Desc]map[[4]string]uint64{requestsTotal: {}, responsesTotal: {}}
	var asked, missed uint64
	for _, c := range all {
		for z, name := range [2]string{s.cfg.Table.Domain(), "."} {
			for i := range countedTypes {
				if n := c.zones[z].types[i].Load(); n > 0 {
					sums[requestsTotal][[4]string{name, c.proto, c.family, typeLabel(countedTypes[i])}] += n
				}
			}
			for code := range c.zones[z].rcodes {
				if n := c.zones[z].rcodes[code].Load(); n > 0 {
					sums[responsesTotal][[4]string{name, mdns.RcodeToString[code]}] += n
				}
			}
		}
		asked += c.cacheAsked.Load()
		missed += c.cacheMissed.Load()
	}
	for l, n := range sums[requestsTotal] {
		out <- prometheus.MustNewConstMetric(requestsTotal, prometheus.CounterValue, float64(n), server, l[0], l[1], l[2], l[3])
	}
	for l, n := range sums[responsesTotal] {
		out <- prometheus.MustNewConstMetric(responsesTotal, prometheus.CounterValue, float64(n), server, l[0], l[1])
	}
	out <- prometheus.MustNewConstMetric(cacheTotal, prometheus.CounterValue, float64(asked), server)
	out <- prometheus.MustNewConstMetric(cacheMisses, prometheus.CounterValue, float64(missed), server)
	out <- prometheus.MustNewConstMetric(cacheEntries, prometheus.GaugeValue, float64(s.cached.len()), server)
}

func typeLabel(t uint16) string {
	if t == 0 {
		return "other"
	}
	return mdns.TypeToString[t]
}
