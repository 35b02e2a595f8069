package status

import "github.com/prometheus/client_golang/prometheus"

var (
	appliedDesc = prometheus.NewDesc("minato_applied_revision", "Newest revision of the Services that the component has reached in full.", []string{"component"}, nil)
	seenDesc    = prometheus.NewDesc("minato_seen_revision", "Newest revision of the Services that the component has tried.", []string{"component"}, nil)
	failingDesc = prometheus.NewDesc("minato_failures_in_a_row", "Attempts since the component last reached a revision; 0: the last one did.", []string{"component"}, nil)
	sinceDesc   = prometheus.NewDesc("minato_state_since_timestamp_seconds", "Since when the component is at its revision, or fails.", []string{"component"}, nil)
	countDesc   = prometheus.NewDesc("minato_component_count", "A figure of the component, such as its number of Services.", []string{"component", "what"}, nil)
)

// Collector gives the entries of one node as metrics.
func (b *Board) Collector(node string) prometheus.Collector { return collector{b, node} }

type collector struct {
	board *Board
	node  string
}

func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{appliedDesc, seenDesc, failingDesc, sinceDesc, countDesc} {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, e := range c.board.Entries() {
		if e.Node != c.node {
			continue
		}
		gauge(appliedDesc, float64(e.Applied), e.Component)
		gauge(seenDesc, float64(e.Seen), e.Component)
		gauge(failingDesc, float64(e.Failures), e.Component)
		if !e.Since.IsZero() {
			gauge(sinceDesc, float64(e.Since.UnixNano())/1e9, e.Component)
		}
		for what, n := range e.Counts {
			gauge(countDesc, float64(n), e.Component, what)
		}
	}
}
