// Package server answers, in the namespace of one node, load balancers outside that ask whether the node wants their
// traffic: at every healthCheckNodePort as package health plans it, and at port 10256 for the node as a whole.
//
// A Server is an apply.Publisher: its answers get worse before a backend is unprogrammed, and better after one is
// programmed. It listens on the node's addresses alone, so several nodes can share a machine; healthCheckNodePorts only
// on those that answer NodePorts.
//
// It forwards nothing and decides nothing about traffic.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/apply"
	"minato/internal/handover"
	"minato/internal/health"
	"minato/internal/model"
	"minato/internal/netns"
)

// Config is what a Server works with.
type Config struct {
	Netns    netns.NS
	Sockets  *handover.Set   // of the process; nil: none are handed over
	Addrs    []netip.Addr    // the node's, until a snapshot says them; none: /healthz answers at all of the machine
	Progress *apply.Progress // of the node's Loop
	Log      *slog.Logger

	// Timeout is how long a change may wait to be applied before the node counts as unhealthy. 0: 1 min, which is
	// kube-proxy's (twice its syncPeriod).
	Timeout time.Duration
	// Port is that of /healthz and /livez, 0: 10256.
	Port uint16
	// Figures are what /metrics has at MetricsPort, 0: 10249, of MetricsAddrs, none: Addrs, besides those of the process
	// and of the Server itself.
	Figures      []prometheus.Collector
	MetricsAddrs []netip.Addr
	MetricsPort  uint16
	// Failed is told of each attempt to open a Service's port that failed. It must not block. nil: nobody is told.
	Failed func(service model.ServiceName, port uint16, err error)
}

// Server has the ports of one node. Make it with New; Run runs it. Withdraw and Publish may be called before Run and
// beside it.
type Server struct {
	cfg     Config
	figures figures
	node    atomic.Pointer[model.Node]

	mu     sync.Mutex // guards all below
	closed bool
	plan   *health.Plan
	addrs  []netip.Addr
	ports  map[model.ServiceName]*port
	serves sync.WaitGroup
}

// port is an open healthCheckNodePort.
type port struct {
	number uint16
	check  atomic.Pointer[health.Check]
	http   *http.Server
}

// New makes a server without open ports.
func New(cfg Config) *Server {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Port == 0 {
		cfg.Port = 10256
	}
	if cfg.MetricsPort == 0 {
		cfg.MetricsPort = 10249
	}
	if cfg.Failed == nil {
		cfg.Failed = func(model.ServiceName, uint16, error) {}
	}
	if cfg.MetricsAddrs == nil {
		cfg.MetricsAddrs = cfg.Addrs
	}
	return &Server{cfg: cfg, figures: newFigures(cfg.Progress), addrs: cfg.Addrs, ports: map[model.ServiceName]*port{}}
}

// Name names the component in the status.
func (s *Server) Name() string { return "health" }

// Withdraw closes the ports that next does not have, and takes back answers that promise more than next.
func (s *Server) Withdraw(ctx context.Context, next *model.Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil || s.closed {
		return err
	}
	s.take(next)
	for name, p := range s.ports {
		c, ok := s.plan.Checks[name]
		if !ok || c.Port != p.number {
			s.close(name)
			continue
		}
		least := c.Least(*p.check.Load())
		p.check.Store(&least)
	}
	return nil
}

// take plans next, and starts anew if the node answers at other addresses: health checks are answered where NodePorts
// are, as by kube-proxy.
func (s *Server) take(next *model.Snapshot) {
	s.plan = s.plan.Next(next)
	s.node.Store(next.Node)
	if next.Node == nil || len(next.Node.Addrs) == 0 {
		return
	}
	addrs := append(next.Node.NodePortAddrs(false), next.Node.NodePortAddrs(true)...)
	if slices.Equal(addrs, s.addrs) {
		return
	}
	s.addrs = addrs
	for name := range maps.Clone(s.ports) {
		s.close(name)
	}
}

// Publish opens the ports of next and lets all give its answers, except those of Services that are held. A port that
// cannot be opened is an error; the others are open.
func (s *Server) Publish(ctx context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil || s.closed {
		return err
	}
	s.take(next)
	var errs []error
	for _, name := range slices.SortedFunc(maps.Keys(s.plan.Checks), model.ServiceName.Compare) {
		c := s.plan.Checks[name]
		p := s.ports[name]
		if held(name) {
			if p != nil {
				continue
			}
			c.IPv4, c.IPv6 = 0, 0
		}
		if p == nil {
			var err error
			if p, err = s.open(ctx, c.Port); err != nil {
				s.cfg.Failed(name, c.Port, err)
				errs = append(errs, fmt.Errorf("no health check of Service %s for load balancers (%w): %w", name, apply.ErrWithdrawn, err))
				continue
			}
			s.ports[name] = p
		}
		p.check.Store(&c)
	}
	return errors.Join(errs...)
}

// open starts to listen on all addresses, or on none.
func (s *Server) open(ctx context.Context, number uint16) (*port, error) {
	p := &port{number: number}
	p.check.Store(new(health.Check))
	p.http = newHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, p.check.Load()) }))
	listeners, err := s.listen(ctx, s.addrs, number)
	if err != nil {
		return nil, err
	}
	for _, l := range listeners {
		s.serves.Go(func() { _ = p.http.Serve(l) }) // ends by close
	}
	return p, nil
}

func (s *Server) listen(ctx context.Context, addrs []netip.Addr, number uint16) (out []net.Listener, err error) {
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, number).String()
		l, err := s.cfg.Sockets.Listener("health/"+s.cfg.Netns.String()+"/"+at, func() (net.Listener, error) {
			return s.cfg.Netns.Listen(ctx, "tcp", at)
		})
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func newHTTP(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 16,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)} // probes that hang up are no news
}

func (s *Server) close(name model.ServiceName) {
	_ = s.ports[name].http.Close()
	delete(s.ports, name)
}

// answer is the same whatever path is asked for.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c *health.Check) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	healthy, _ := s.proxy(time.Now())
	a := c.Answer(local != nil && local.IP.To4() == nil, healthy)
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", a.Weight)
	write(w, a.Status, a.Body)
}

func write(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client may be gone
}

// proxy says whether the data path is up to date, and since when it was. It is healthy as long as it starts.
func (s *Server) proxy(now time.Time) (healthy bool, updated time.Time) {
	waiting, reached := s.cfg.Progress.Read()
	return reached.IsZero() || waiting.IsZero() || now.Sub(waiting) < s.cfg.Timeout, reached
}

// Run answers for the node as a whole until ctx ends, and then closes all ports.
func (s *Server) Run(ctx context.Context) error {
	defer s.serves.Wait()
	defer s.closeAll()
	var always sync.WaitGroup
	always.Go(func() { s.keep(ctx, s.cfg.Addrs, s.cfg.Port, s.Health()) })
	always.Go(func() { s.keep(ctx, s.cfg.MetricsAddrs, s.cfg.MetricsPort, s.metrics()) })
	always.Wait()
	return nil
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for name := range maps.Clone(s.ports) {
		s.close(name)
	}
}
