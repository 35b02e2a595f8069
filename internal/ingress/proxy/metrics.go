package proxy

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	requestsTotal = prometheus.NewDesc("minato_ingress_requests_total", "Requests that have ended, by status; 0: the client went away.",
		[]string{"status"}, nil)
	activeRequests = prometheus.NewDesc("minato_ingress_active_requests", "Requests under way, WebSockets included.", nil, nil)
	retriesTotal   = prometheus.NewDesc("minato_ingress_retries_total", "Attempts at another backend than the first.", nil, nil)
)

// counters are cheap enough to be always on: no map and no label is touched by a request.
type counters struct {
	statuses [600]atomic.Uint64
	active   atomic.Int64
	retries  atomic.Uint64
	buffers  buffers
}

func (c *counters) answered(status int) {
	if status < len(c.statuses) {
		c.statuses[status].Add(1)
	}
}

// Describe is for prometheus.Collector.
func (s *Server) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsTotal, activeRequests, retriesTotal} {
		out <- d
	}
}

// Collect is for prometheus.Collector.
func (s *Server) Collect(out chan<- prometheus.Metric) {
	for status := range s.statuses {
		if n := s.statuses[status].Load(); n > 0 {
			out <- prometheus.MustNewConstMetric(requestsTotal, prometheus.CounterValue, float64(n), strconv.Itoa(status))
		}
	}
	out <- prometheus.MustNewConstMetric(activeRequests, prometheus.GaugeValue, float64(s.active.Load()))
	out <- prometheus.MustNewConstMetric(retriesTotal, prometheus.CounterValue, float64(s.retries.Load()))
}
