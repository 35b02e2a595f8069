//go:build linux

package server

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// summary is what node and pods use, as JSON.
func (s Server) summary(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.Pods.Summary()) // an error is the client's, which has gone
}

// resourceMetrics is the same for Prometheus, under the names that metrics-server reads.
func (s Server) resourceMetrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(resources{s.Pods.Summary})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// resources collects a Summary as upstream does (pkg/kubelet/metrics/collectors).
type resources struct{ summary func() stats.Summary }

func (r resources) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(r, ch) }

func (r resources) Collect(ch chan<- prometheus.Metric) {
	summary := r.summary()
	send := func(name, help string, kind prometheus.ValueType, value float64, labels ...string) {
		names := []string{"container", "pod", "namespace"}[3-len(labels):]
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, labels...)
	}
	use := func(of string, cpu *stats.CPUStats, memory *stats.MemoryStats, labels ...string) {
		send(of+"_cpu_usage_seconds_total", "Cumulative cpu time consumed by the "+of+" in core-seconds",
			prometheus.CounterValue, float64(*cpu.UsageCoreNanoSeconds)/1e9, labels...)
		send(of+"_memory_working_set_bytes", "Current working set of the "+of+" in bytes",
			prometheus.GaugeValue, float64(*memory.WorkingSetBytes), labels...)
	}
	use("node", summary.Node.CPU, summary.Node.Memory)
	for _, pod := range summary.Pods {
		use("pod", pod.CPU, pod.Memory, pod.PodRef.Name, pod.PodRef.Namespace)
		for _, c := range pod.Containers {
			labels := []string{c.Name, pod.PodRef.Name, pod.PodRef.Namespace}
			use("container", c.CPU, c.Memory, labels...)
			send("container_start_time_seconds", "Start time of the container since unix epoch in seconds",
				prometheus.GaugeValue, float64(c.StartTime.UnixNano())/1e9, labels...)
		}
	}
	send("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", prometheus.GaugeValue, 0)
}
