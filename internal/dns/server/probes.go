package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HTTP says at which ports of its own addresses the server answers CoreDNS's paths; 0: not at all.
type HTTP struct {
	Health  uint16 // /health, 8080: 200 as long as it runs
	Ready   uint16 // /ready, 8181: 200 when it answers questions, else 503 and the reason
	Metrics uint16 // /metrics, 9153, a port of Service kube-dns
}

// serveHTTP answers until ctx ends. A port that somebody else has is a line in the log: DNS does not need it.
func (s *Server) serveHTTP(ctx context.Context) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range []struct {
		port    uint16
		path    string
		handler http.Handler
	}{
		{s.cfg.HTTP.Health, "/health", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })},
		{s.cfg.HTTP.Ready, "/ready", http.HandlerFunc(s.answerReady)},
		{s.cfg.HTTP.Metrics, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{})},
	} {
		if p.port == 0 {
			continue
		}
		mux := http.NewServeMux()
		mux.Handle(p.path, p.handler)
		for _, a := range s.cfg.Addrs {
			at := netip.AddrPortFrom(a, p.port)
			l, err := s.listenTCP(at, func() (net.Listener, error) { return s.cfg.Netns.Listen(ctx, "tcp", at.String()) })
			if err != nil {
				s.log.Warn("dns: not answering over HTTP", "address", a, "port", p.port, "path", p.path, "error", err)
				continue
			}
			h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { h.Close() })()
				if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
					s.log.Warn("dns: no longer answering over HTTP", "port", p.port, "path", p.path, "error", err)
				}
			})
		}
	}
}

func (s *Server) answerReady(w http.ResponseWriter, _ *http.Request) {
	if ok, reason := s.Ready(); !ok {
		http.Error(w, "kubernetes: "+reason, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, "OK")
}

// listenTCP opens a TCP port in the server's namespace, or takes it over from a predecessor.
func (s *Server) listenTCP(at netip.AddrPort, open func() (net.Listener, error)) (net.Listener, error) {
	return s.cfg.Handover.Listener("dns/"+s.cfg.Netns.String()+"/tcp/"+at.String(), open)
}
