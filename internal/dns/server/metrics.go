package server

import (
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"
)

// countedTypes are the types of questions with a counter of their own; the last stands for all others, as in CoreDNS
// (plugin/metrics/vars).
var countedTypes = [...]uint16{
	mdns.TypeA, mdns.TypeAAAA, mdns.TypeSRV, mdns.TypePTR, mdns.TypeTXT, mdns.TypeCNAME, mdns.TypeNS, mdns.TypeSOA, mdns.TypeMX,
	mdns.TypeHTTPS, mdns.TypeSVCB, mdns.TypeDNSKEY, mdns.TypeDS, mdns.TypeNSEC, mdns.TypeNSEC3, mdns.TypeRRSIG, mdns.TypeANY, 0,
}

const ownZone, otherZone = 0, 1

// counters are those of one socket, so that threads do not share them. They may be read while they are written.
type counters struct {
	proto, family string
	zones         [2]zoneCounters // our own, others
	cacheAsked    atomic.Uint64
	cacheMissed   atomic.Uint64
	cacheHits     [2]atomic.Uint64 // of names that exist, and that do not
}

type zoneCounters struct {
	types    [len(countedTypes)]atomic.Uint64
	rcodes   [17]atomic.Uint64 // by response code; the last is BADVERS
	do       atomic.Uint64
	asked    histogram // bytes of questions
	replied  histogram // bytes of replies
	duration histogram // nanoseconds
}

func (c *counters) question(zone int, q *query) {
	z := &c.zones[zone]
	if q.do {
		z.do.Add(1)
	}
	z.asked.observe(int64(q.length), sizeBuckets)
	last := len(countedTypes) - 1
	for i, t := range countedTypes[:last] {
		if t == q.qtype {
			z.types[i].Add(1)
			return
		}
	}
	z.types[last].Add(1)
}

func (c *counters) reply(zone, rcode int) {
	c.zones[zone].rcodes[min(rcode, rcodeBadVersion)].Add(1)
}

// sent notes a reply of some bytes, and how long its question was with us.
func (c *counters) sent(zone, size int, took time.Duration) {
	c.zones[zone].replied.observe(int64(size), sizeBuckets)
	c.zones[zone].duration.observe(int64(took), durationBuckets)
}

func (c *counters) cacheHit(a *answer) { c.cacheHits[a.kind()].Add(1) }

// kind is 0 for an answer with records, 1 for one without.
func (a *answer) kind() int {
	if a.answers > 0 {
		return 0
	}
	return 1
}

// Buckets are CoreDNS's: plugin/metrics/vars and plugin.TimeBuckets.
var (
	sizeBuckets     = []int64{0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16e3, 32e3, 48e3, 64e3}
	durationBuckets = func() (b []int64) {
		for d := 250 * time.Microsecond; len(b) < 16; d *= 2 {
			b = append(b, int64(d))
		}
		return b
	}()
)

// histogram counts values in at most 17 buckets, of which the last has no upper end. It allocates nothing.
type histogram struct {
	counts [17]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(v int64, buckets []int64) {
	i := 0
	for i < len(buckets) && v > buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// tally is the sum of histograms, as prometheus takes it.
type tally struct {
	count, sum float64
	buckets    map[float64]uint64 // cumulative
}

// add adds a histogram; unit turns its values into those of the metric.
func (t *tally) add(h *histogram, buckets []int64, unit float64) {
	if t.buckets == nil {
		t.buckets = make(map[float64]uint64, len(buckets))
	}
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
		if i < len(buckets) {
			t.buckets[float64(buckets[i])*unit] += total
		}
	}
	t.count += float64(total)
	t.sum += float64(h.sum.Load()) * unit
}

// upstreamCounters are those of one upstream.
type upstreamCounters struct {
	asked, failed atomic.Uint64
	rcodes        [16]histogram // how long answers took, by response code
}

// count notes an attempt to get an answer.
func (u *upstream) count(a *answer, err error, took time.Duration) {
	u.counts.asked.Add(1)
	if err != nil {
		u.counts.failed.Add(1)
		return
	}
	u.counts.rcodes[a.rcode&15].observe(int64(took), durationBuckets)
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
