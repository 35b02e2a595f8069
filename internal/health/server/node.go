package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"minato/internal/apply"
)

// family is how one IP family stands. Both stand alike here: they are applied together.
type family struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// nodeHealth is the body of /healthz and /livez, as k8s.io/kubernetes/pkg/proxy/healthcheck/proxy_health.go has it.
type nodeHealth struct {
	LastUpdated  time.Time         `json:"lastUpdated"`
	CurrentTime  time.Time         `json:"currentTime"`
	NodeEligible *bool             `json:"nodeEligible,omitempty"` // /healthz only
	Healthy      bool              `json:"healthy"`
	Status       map[string]family `json:"status,omitempty"`
}

// Health is what Run serves at the node's port: /healthz, which load balancers ask for Services with policy Cluster
// (KEP-3836), and /livez, which says nothing about the node.
func (s *Server) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { s.answerNode(w, true) })
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { s.answerNode(w, false) })
	return mux
}

// figures are those that the Server has itself, under kube-proxy's names (pkg/proxy/metrics).
type figures struct {
	healthz, livez *prometheus.CounterVec // by status
	queued         prometheus.Collector
}

func newFigures(p *apply.Progress) figures {
	answers := func(path string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubeproxy", Name: "proxy_" + path + "_total",
			Help: "Answers of /" + path + ", by status."}, []string{"code"})
	}
	return figures{answers("healthz"), answers("livez"), prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "kubeproxy",
		Name: "sync_proxy_rules_last_queued_timestamp_seconds", Help: "When something was last there to be programmed."},
		func() float64 {
			if at := p.Queued(); !at.IsZero() {
				return float64(at.UnixNano()) / 1e9
			}
			return 0
		})}
}

// metrics has the paths of kube-proxy's metrics port. A collector that fails costs its own figures only.
func (s *Server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(s.figures.healthz, s.figures.livez, s.figures.queued)
	r.MustRegister(s.cfg.Figures...)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "nftables") })
	return mux
}

// keep serves h at a port of the addresses, none: all of the machine, until ctx ends, and tries again when it cannot.
func (s *Server) keep(ctx context.Context, addrs []netip.Addr, port uint16, h http.Handler) {
	if len(addrs) == 0 {
		addrs = []netip.Addr{netip.IPv6Unspecified()} // and IPv4
	}
	for {
		err := s.serve(ctx, addrs, port, h)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.Warn("the node's health or metrics cannot be asked for; trying again", "port", port, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}

// serve ends with ctx or when listening fails.
func (s *Server) serve(ctx context.Context, addrs []netip.Addr, port uint16, h http.Handler) error {
	listeners, err := s.listen(ctx, addrs, port)
	if err != nil {
		return err
	}
	server := newHTTP(h)
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		s.serves.Go(func() { ended <- server.Serve(l) })
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func (s *Server) answerNode(w http.ResponseWriter, withNode bool) {
	now := time.Now()
	healthy, updated := s.proxy(now)
	h := nodeHealth{LastUpdated: updated, CurrentTime: now, Healthy: healthy, Status: map[string]family{}}
	if n := s.node.Load(); n != nil && !updated.IsZero() {
		for name, a := range map[string]bool{"IPv4": n.Addr(false).IsValid(), "IPv6": n.Addr(true).IsValid()} {
			if a {
				h.Status[name] = family{updated, healthy}
			}
		}
	}
	ok := healthy
	if withNode {
		eligible := s.eligible()
		h.NodeEligible = &eligible
		ok = ok && eligible
	}
	status, answers := http.StatusServiceUnavailable, s.figures.livez
	if withNode {
		answers = s.figures.healthz
	}
	if ok {
		status, h.LastUpdated = http.StatusOK, now
	}
	answers.WithLabelValues(strconv.Itoa(status)).Inc()
	body, err := json.Marshal(h)
	if err != nil {
		panic(err) // times and booleans
	}
	write(w, status, string(body))
}

// eligible reports whether the node is there, and to stay.
func (s *Server) eligible() bool {
	n := s.node.Load()
	return n != nil && !n.Leaving
}
