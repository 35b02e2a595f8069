//go:build linux

package kernel

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"minato/internal/model"
	"minato/internal/nfnl"
)

// metrics are figures of what was done. Where kube-proxy has one, it has its name (pkg/proxy/metrics); one call of
// Program counts for both families, which are done together.
type metrics struct {
	started     time.Time
	sync        *prometheus.HistogramVec
	full        *prometheus.HistogramVec // those in which everything was planned
	partial     *prometheus.HistogramVec // the others
	last        *prometheus.GaugeVec
	programming *prometheus.HistogramVec
	services    prometheus.Counter
	endpoints   prometheus.Counter
	failures    *prometheus.CounterVec
	cleanups    prometheus.Counter
	flows       prometheus.Histogram
	deleted     *prometheus.CounterVec
	repairs     prometheus.Counter
}

const byFamily = "ip_family"

var (
	elementsDesc = prometheus.NewDesc("minato_nftables_elements", "Elements of the node's maps.", []string{byFamily, "map"}, nil)
	verdictsDesc = prometheus.NewDesc("minato_connections_total",
		"New connections that met the rules, also those to ports of Services that are none. A packet of a client that tries again counts again.",
		[]string{byFamily, "verdict"}, nil)
	servicesDesc = prometheus.NewDesc("minato_service_connections_total",
		"New connections to a Service. One that had none has no figure.", []string{byFamily, "namespace", "service", "verdict"}, nil)
	pendingDesc = prometheus.NewDesc("kubeproxy_sync_proxy_rules_service_changes_pending",
		"Services whose newest state, or that of their endpoints, the kernel does not have.", nil, nil)
	nowhereDesc = prometheus.NewDesc("kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		"Service ports with a traffic policy Local whose connections are dropped, because no endpoint is on the node.",
		[]string{byFamily, "traffic_policy"}, nil)
	trackedDesc = prometheus.NewDesc("minato_conntrack_entries", "Connections that the node's kernel tracks.", nil, nil)
	limitDesc   = prometheus.NewDesc("minato_conntrack_limit", "The most that it tracks; beyond it new connections are dropped.", nil, nil)
)

func newMetrics() metrics {
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "kubeproxy", Name: name, Help: help, Buckets: buckets}
	}
	counter := func(namespace, name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
	}
	quick := prometheus.ExponentialBuckets(0.0001, 2, 18) // kube-proxy's begin at 1 ms, where ours mostly end
	network := append(prometheus.ExponentialBuckets(0.001, 2, 8), 0.25, 0.5)
	for s := 1.0; s <= 60; s++ {
		network = append(network, s)
	}
	return metrics{
		started: time.Now(),
		sync: prometheus.NewHistogramVec(histogram("sync_proxy_rules_duration_seconds",
			"How long it took to program what had changed.", quick), []string{byFamily}),
		full: prometheus.NewHistogramVec(histogram("sync_full_proxy_rules_duration_seconds",
			"How long it took where everything was planned: at the start, and after errors.", quick), []string{byFamily}),
		partial: prometheus.NewHistogramVec(histogram("sync_partial_proxy_rules_duration_seconds",
			"How long it took where only what had changed was planned.", quick), []string{byFamily}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubeproxy", Name: "sync_proxy_rules_last_timestamp_seconds",
			Help: "When everything was last programmed."}, []string{byFamily}),
		programming: prometheus.NewHistogramVec(histogram("network_programming_duration_seconds",
			"From the cause of a change of endpoints, as the API noted it, to the kernel.", network), []string{byFamily}),
		services:  prometheus.NewCounter(counter("kubeproxy", "sync_proxy_rules_service_changes_total", "Changes of Services.")),
		endpoints: prometheus.NewCounter(counter("kubeproxy", "sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices of Services.")),
		failures: prometheus.NewCounterVec(counter("kubeproxy", "sync_proxy_rules_nftables_sync_failures_total",
			"Transactions that the kernel refused."), []string{byFamily}),
		cleanups: prometheus.NewCounter(counter("kubeproxy", "sync_proxy_rules_nftables_cleanup_failures_total",
			"Failures to delete what was not wanted any more.")),
		flows: prometheus.NewHistogram(histogram("conntrack_reconciler_sync_duration_seconds",
			"How long it took to find and delete flows to endpoints that are gone.", quick)),
		deleted: prometheus.NewCounterVec(counter("kubeproxy", "conntrack_reconciler_deleted_entries_total",
			"Flows to endpoints that are gone, deleted."), []string{byFamily}),
		repairs: prometheus.NewCounter(counter("minato", "nftables_repairs_total",
			"How often what somebody else had changed in the tables was found.")),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.sync, m.full, m.partial, m.last, m.programming, m.services, m.endpoints, m.failures, m.cleanups, m.flows, m.deleted, m.repairs}
}

// familyLabel is the family as kube-proxy's metrics name it.
func familyLabel(f nfnl.Family) string {
	if f == nfnl.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// changed notes a change of a Service, and returns the causes of its new endpoints that came while this process ran.
func (m *metrics) changed(c model.ServiceChange) (causes []cause) {
	m.services.Inc()
	before := map[*model.BackendSlice]bool{}
	if c.Old != nil {
		for _, s := range c.Old.Slices {
			before[s] = true
		}
	}
	if c.New == nil {
		return nil
	}
	for _, s := range c.New.Slices {
		if before[s] {
			continue
		}
		m.endpoints.Inc()
		if s.Triggered.After(m.started) {
			causes = append(causes, cause{s.Triggered, s.IPv6})
		}
	}
	return causes
}

// cause is when the cause of a change happened.
type cause struct {
	at   time.Time
	ipv6 bool
}

// upToDate notes that the kernel has everything.
func (m *metrics) upToDate(tables []*table) {
	for _, t := range tables {
		m.last.WithLabelValues(familyLabel(t.id)).Set(float64(time.Now().UnixNano()) / 1e9)
	}
}

// programmed notes a Program that had something to do.
func (a *Applier) programmed(start time.Time, full bool, causes []cause, failed bool) {
	now := time.Now()
	for _, t := range a.tables {
		label := familyLabel(t.id)
		kind := a.metrics.partial
		if full {
			kind = a.metrics.full
		}
		for _, h := range []*prometheus.HistogramVec{a.metrics.sync, kind} {
			h.WithLabelValues(label).Observe(now.Sub(start).Seconds())
		}
		for _, c := range causes {
			if c.ipv6 == t.ipv6 && !failed {
				a.metrics.programming.WithLabelValues(label).Observe(now.Sub(c.at).Seconds())
			}
		}
	}
}

// Describe is for prometheus.Collector.
func (a *Applier) Describe(out chan<- *prometheus.Desc) {
	for _, c := range a.metrics.collectors() {
		c.Describe(out)
	}
	for _, d := range []*prometheus.Desc{elementsDesc, verdictsDesc, servicesDesc, pendingDesc, nowhereDesc, trackedDesc, limitDesc, clientsDesc, roomDesc, forgoneDesc} {
		out <- d
	}
}

// Collect is for prometheus.Collector. It reads the counters of the rules and of Services, but not of endpoints: these
// would make a figure for each that there ever was. Connections has them.
func (a *Applier) Collect(out chan<- prometheus.Metric) {
	for _, c := range a.metrics.collectors() {
		c.Collect(out)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(len(a.dirty)))
	for _, t := range a.tables {
		for policy, n := range t.nowhere() {
			out <- prometheus.MustNewConstMetric(nowhereDesc, prometheus.GaugeValue, float64(n), familyLabel(t.id), policy)
		}
		for name, n := range map[SetName]int{setSvc: len(t.state.svc), setEp: len(t.state.eps), setClass: len(t.state.classes), setMasq: len(t.state.masq)} {
			out <- prometheus.MustNewConstMetric(elementsDesc, prometheus.GaugeValue, float64(n), familyLabel(t.id), string(name))
		}
		rules, err := t.kernel.Rules(t.id, t.table, "")
		if err = ignoreMissing(err); err != nil {
			out <- prometheus.NewInvalidMetric(verdictsDesc, err)
			continue
		}
		for v, n := range countedVerdicts(rules) {
			out <- prometheus.MustNewConstMetric(verdictsDesc, prometheus.CounterValue, float64(n), familyLabel(t.id), v)
		}
		t.collectAffinity(out, rules)
		t.collectServices(out)
	}
	if a.cfg.Kernel == nil { // with another kernel the files are not those of its namespace
		a.collectTracked(out)
	}
}

// nowhere counts the pools that drop all their connections, by the policy that asks for it.
func (t *table) nowhere() map[string]int {
	pools := map[string]map[uint32]bool{"internal": {}, "external": {}}
	for k, to := range t.state.svc {
		if to.class.base() != dropped {
			continue
		}
		policy := "external"
		if t.state.addrs[setVIP][k.Addr] {
			policy = "internal"
		}
		pools[policy][to.pool] = true
	}
	return map[string]int{"internal": len(pools["internal"]), "external": len(pools["external"])}
}

// collectServices adds up the connections of the ports of each Service.
func (t *table) collectServices(out chan<- prometheus.Metric) {
	if t.outdated {
		return
	}
	pools, err := t.connections()
	if err != nil {
		out <- prometheus.NewInvalidMetric(servicesDesc, err)
		return
	}
	sum := map[model.ServiceName]Connections{}
	for _, p := range pools {
		c := sum[p.Service]
		sum[p.Service] = Connections{c.Forwarded + p.Forwarded, c.Refused + p.Refused, c.Dropped + p.Dropped}
	}
	for s, c := range sum {
		for verdict, n := range map[string]uint64{"forwarded": c.Forwarded, "refused": c.Refused, "dropped": c.Dropped} {
			if n > 0 {
				out <- prometheus.MustNewConstMetric(servicesDesc, prometheus.CounterValue, float64(n), familyLabel(t.id), s.Namespace, s.Name, verdict)
			}
		}
	}
}

func (a *Applier) collectTracked(out chan<- prometheus.Metric) {
	for d, name := range map[*prometheus.Desc]string{trackedDesc: "nf_conntrack_count", limitDesc: "nf_conntrack_max"} {
		var text []byte
		err := a.cfg.Netns.Do(func() (err error) {
			text, err = os.ReadFile("/proc/sys/net/netfilter/" + name)
			return err
		})
		if n, parseErr := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil && parseErr == nil {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n)
		}
	}
}

// countedVerdicts adds up what the rules have counted: a packet that comes to a chain of translations begins a connection.
func countedVerdicts(rules []nfnl.Rule) map[string]uint64 {
	sum := map[string]uint64{"forwarded": 0, "refused": 0, "dropped": 0}
	for _, r := range rules {
		if v, n := outcome(r); v != "" && r.Comment != commentPing && r.Comment != commentInvalid {
			sum[v] += n
		}
	}
	return sum
}

// outcome is what becomes of the packets that a rule has counted, and how many they are.
func outcome(r nfnl.Rule) (verdict string, n uint64) {
	for _, e := range r.Exprs {
		switch e.Name {
		case "counter":
			if b := nfnl.Attr(e.Data, unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
				n = binary.BigEndian.Uint64(b)
			}
		case "nat":
			verdict = "forwarded"
		case "reject":
			verdict = "refused"
		case "immediate":
			code := nfnl.Attr(nfnl.Attr(nfnl.Attr(e.Data, unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT), unix.NFTA_VERDICT_CODE)
			if len(code) == 4 && int32(binary.BigEndian.Uint32(code)) == int32(nfnl.Drop) {
				verdict = "dropped"
			}
		}
	}
	return verdict, n
}
