//go:build linux

package netns_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/model"
	"minato/internal/netns/netnstest"
)

// figures are the values of a Collector's counters and gauges, and how often a histogram was told of something, by name
// and the values of labels.
func figures(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestTheKernelCountsConnectionsByWhatBecomesOfThem(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"), w.service("empty", 2, nil))
	before := figures(t, w.dp)
	for range 5 {
		netnstest.MustAsk(t, w.pod(9), "tcp", "10.96.0.1:80")
	}
	for range 3 {
		if _, err := netnstest.Ask(w.pod(9), "tcp", "10.96.0.2:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want connection refused", err)
		}
	}
	after := figures(t, w.dp)
	for verdict, want := range map[string]float64{"forwarded": 5, "refused": 3, "dropped": 0} {
		name := "minato_connections_total IPv4 " + verdict
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
}

func TestMetricsTellWhatWasProgrammed(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	c := w.client(t, w.pod(9), "10.96.0.1:80")
	c.expect("10.244.1.2")
	before := figures(t, w.dp)
	cause := func(s *model.Service) { s.Slices[0].Triggered = time.Now() }
	w.apply(w.service("web", 1, cause, "10.244.1.3"))
	c.expect("10.244.1.3")
	after := figures(t, w.dp)
	for name, want := range map[string]float64{
		"kubeproxy_sync_proxy_rules_duration_seconds IPv4":             1,
		"kubeproxy_sync_partial_proxy_rules_duration_seconds IPv4":     1,
		"kubeproxy_sync_full_proxy_rules_duration_seconds IPv4":        0,
		"kubeproxy_network_programming_duration_seconds IPv4":          1,
		"kubeproxy_sync_proxy_rules_service_changes_total":             1,
		"kubeproxy_sync_proxy_rules_endpoint_changes_total":            1,
		"kubeproxy_conntrack_reconciler_deleted_entries_total IPv4":    1,
		"minato_nftables_elements IPv4 ep":                             0,
		"kubeproxy_sync_proxy_rules_nftables_sync_failures_total IPv4": 0,
		"kubeproxy_sync_proxy_rules_service_changes_pending":           0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"minato_conntrack_entries", "minato_conntrack_limit", "kubeproxy_sync_proxy_rules_last_timestamp_seconds IPv4"} {
		if after[name] <= 0 {
			t.Errorf("%s is %v", name, after[name])
		}
	}
}

func TestConntrackKeepsConnectionsAsKubeProxyHasIt(t *testing.T) {
	w := newWorld(t)
	for state, want := range map[string]string{"close_wait": "3600", "established": "86400"} {
		if got := strings.TrimSpace(netnstest.Run(t, w.node, "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_timeout_"+state)); got != want {
			t.Errorf("%s: %s s, want %s", state, got, want)
		}
	}
}

func TestMetricsTellOfPoliciesThatFindNoEndpoint(t *testing.T) {
	w := newWorld(t)
	w.apply(w.service("external", 1, func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }, farPod),
		w.service("both", 2, func(s *model.Service) { s.ExternalTrafficPolicy, s.InternalTrafficPolicy = model.Local, model.Local }, farPod),
		w.service("empty", 3, func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }))
	got := figures(t, w.dp)
	for policy, want := range map[string]float64{"internal": 2, "external": 4} { // each Service has a port of TCP and one of UDP
		if n := got["kubeproxy_sync_proxy_rules_no_local_endpoints_total IPv4 "+policy]; n != want {
			t.Errorf("%s: %v, want %v", policy, n, want)
		}
	}
}
