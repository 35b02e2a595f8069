package server

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
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

// serveNode serves /healthz, which load balancers ask for Services with policy Cluster (KEP-3836), and /livez, which
// says nothing about the node. It ends with ctx or when listening fails.
func (s *Server) serveNode(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { s.answerNode(w, true) })
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { s.answerNode(w, false) })
	s.mu.Lock()
	listeners, err := s.listen(ctx, s.cfg.Port)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	server := newHTTP(mux)
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
	status := http.StatusServiceUnavailable
	if ok {
		status, h.LastUpdated = http.StatusOK, now
	}
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
