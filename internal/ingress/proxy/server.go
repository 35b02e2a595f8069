// Package proxy serves the Ingresses of one node over HTTP: it listens on ports 80 and 443 of the node's addresses and
// forwards each request to a backend that package ingress has planned.
//
// There is one immutable table behind an atomic pointer, and nothing is ever reloaded. A change of endpoints changes
// the pool in place: requests under way go on to a backend that is gone from it, new ones go elsewhere. The client's
// address is true because the proxy listens where the traffic arrives. Bodies are streamed both ways and never
// buffered as a whole. HTTP/1.1 and, over TLS, HTTP/2 in front; HTTP/1.1 with keep-alive behind.
//
// It chooses no rule (package ingress does), writes no status, and speaks neither HTTP/3 nor HTTP/2 to backends.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/drain"
	"minato/internal/handover"
	"minato/internal/ingress"
	"minato/internal/model"
	"minato/internal/netns"
)

// Config is what a Server needs. Netns, Addrs and Default are required.
type Config struct {
	Netns     netns.NS         // in which it listens, and from which it reaches backends
	Sockets   *handover.Set    // of the process; nil: none are handed over
	Addrs     []netip.Addr     // addresses to listen on; never a wildcard, so that other programs keep theirs
	Ports     Ports            // zero: 80 and 443
	Default   *tls.Certificate // for names that have no other
	Log       *slog.Logger     // nil: slog.Default()
	AccessLog *slog.Logger     // nil: no access log
	OnChange  func()           // called when it has begun or ceased to listen; may be nil, must not block

	Timeouts Timeouts      // zero: those of ingress-nginx
	Grace    time.Duration // for requests under way when it stops; 0: 2 s. A minute where a successor has the ports
}

// Ports are the ports on which a Server listens.
type Ports struct{ HTTP, HTTPS uint16 }

// Timeouts bound how long others may be silent. The zero value of each is ingress-nginx's default.
type Timeouts struct {
	Connect time.Duration // to a backend: 5 s
	Backend time.Duration // in which a backend sends or takes nothing: 60 s
	Client  time.Duration // in which a client sends or takes nothing of a request: 60 s
	Idle    time.Duration // of a client's connection between requests: 75 s
}

func (c *Config) defaults() error {
	if len(c.Addrs) == 0 || c.Default == nil {
		return errors.New("ingress proxy: an address and a default certificate are needed")
	}
	if c.Ports == (Ports{}) {
		c.Ports = Ports{80, 443}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.OnChange == nil {
		c.OnChange = func() {}
	}
	for d, value := range map[*time.Duration]time.Duration{
		&c.Timeouts.Connect: 5 * time.Second, &c.Timeouts.Backend: time.Minute, &c.Timeouts.Client: time.Minute,
		&c.Timeouts.Idle: 75 * time.Second, &c.Grace: 2 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	return nil
}

// ErrPortTaken says that another program has port 80 or 443 on one of the addresses.
var ErrPortTaken = errors.New("port in use")

// relisten is how often a port that was taken is tried again.
const relisten = 2 * time.Second

// Server is the proxy of one node. Make it with New and call Run once. It is an apply.Publisher and a
// prometheus.Collector.
type Server struct {
	cfg   Config
	table atomic.Pointer[table]
	wake  chan struct{}         // the table has changed
	state atomic.Pointer[state] // of listening
	life  context.Context       // of dials to backends
	end   context.CancelFunc
	counters

	mu      sync.Mutex    // guards all below: Withdraw and Publish
	planned *ingress.Plan // of the newest snapshot; what table shows differs where Services are held
}

type state struct {
	listening bool
	problem   string
}

// table is what requests are looked up in.
type table struct {
	plan         *ingress.Plan
	pools        map[ingress.PoolName]*pool
	certificates map[*model.Certificate]*tls.Certificate
}

// New makes a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, wake: make(chan struct{}, 1), planned: ingress.New(model.Empty())}
	s.life, s.end = context.WithCancel(context.Background())
	s.table.Store(&table{plan: s.planned})
	s.state.Store(&state{})
	return s, nil
}

// Listening reports whether requests are accepted. They are while there is some Ingress to serve, so that the ports
// are free for others until then.
func (s *Server) Listening() bool { return s.state.Load().listening }

// Settled reports whether it listens exactly if there is something to serve, or knows that it cannot.
func (s *Server) Settled() bool {
	now := s.state.Load()
	return now.problem != "" || now.listening != s.table.Load().plan.Empty()
}

// Problem says why it does not listen although it should, empty when all is well.
func (s *Server) Problem() string { return s.state.Load().problem }

func (s *Server) setState(n state) {
	if old := s.state.Swap(&n); *old != n {
		if n.problem != "" {
			s.cfg.Log.Warn("ingress: not listening", "problem", n.problem)
		}
		s.cfg.OnChange()
	}
}

// Run serves until ctx ends and then returns nil. A port that another program has is no end: Problem says so, and it
// is tried again. All that it started is gone when it returns.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	var f *front
	for {
		var again <-chan time.Time
		switch empty := s.table.Load().plan.Empty(); {
		case !empty && f == nil:
			var err error
			if f, err = s.open(ctx); err != nil {
				s.setState(state{problem: err.Error()})
				again = time.After(relisten)
				break
			}
			s.setState(state{listening: true})
		case empty && f != nil:
			s.setState(state{})
			f.stop(s.cfg.Grace, 0)
			f = nil
		case empty:
			s.setState(state{})
		}
		select {
		case <-ctx.Done():
			s.setState(state{})
			if s.cfg.Sockets.Handed() {
				f.stop(max(s.cfg.Grace, time.Minute), time.Second)
			} else {
				f.stop(s.cfg.Grace, 0)
			}
			return nil
		case <-s.wake:
		case <-again:
		case err := <-f.failed():
			s.setState(state{problem: err.Error()})
			f.stop(0, 0)
			f = nil
		}
	}
}

// close ends every connection to backends.
func (s *Server) close() {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.table.Load().pools {
		p.update(nil)
	}
}

// front is the listening side: from the first Ingress to the last.
type front struct {
	http     *drain.Server
	cancel   context.CancelFunc // of all its requests
	requests sync.WaitGroup     // also those that became WebSockets, which http.Server no longer knows
	serving  sync.WaitGroup
	errs     chan error
}

// open listens on every address and begins to serve.
func (s *Server) open(ctx context.Context) (*front, error) {
	var plain, secure []net.Listener
	err := s.cfg.Netns.Do(func() error {
		for _, a := range s.cfg.Addrs {
			for port, to := range map[uint16]*[]net.Listener{s.cfg.Ports.HTTP: &plain, s.cfg.Ports.HTTPS: &secure} {
				at := netip.AddrPortFrom(a, port)
				l, err := s.cfg.Sockets.Listener("ingress/"+s.cfg.Netns.String()+"/"+at.String(), func() (net.Listener, error) {
					return new(net.ListenConfig).Listen(ctx, "tcp", at.String())
				})
				if errors.Is(err, unix.EADDRINUSE) {
					return fmt.Errorf("no Ingress is served: %w: another program has %s; `ss -lntp 'sport = %d'` on the node names it: stop it, or let it listen on addresses of its own only", ErrPortTaken, at, port)
				} else if err != nil {
					return fmt.Errorf("no Ingress is served: listen on %s: %w", at, err)
				}
				*to = append(*to, stallListener{l, s.cfg.Timeouts.Client})
			}
		}
		return nil
	})
	if err != nil {
		for _, l := range append(plain, secure...) {
			l.Close()
		}
		return nil, err
	}
	return s.serve(ctx, plain, secure), nil
}

func (s *Server) serve(ctx context.Context, plain, secure []net.Listener) *front {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &front{cancel: cancel, errs: make(chan error, len(plain)+len(secure))}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // by ALPN; HTTP/2 without TLS is not spoken
	f.http = drain.New(&http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.requests.Add(1)
			defer f.requests.Done()
			s.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.cfg.Timeouts.Client,
		IdleTimeout:       s.cfg.Timeouts.Idle,
		MaxHeaderBytes:    32 << 10, // nginx: large_client_header_buffers 4 8k
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 128},
		// NextProtos is said here, because a server of both kinds of listeners would else set up HTTP/2 or not by
		// which of them is first.
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:  slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	})
	accept := func(serve func(net.Listener) error, l net.Listener) {
		f.serving.Go(func() {
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				f.errs <- fmt.Errorf("no Ingress is served: accept connections at %s: %w", l.Addr(), err)
			}
		})
	}
	for _, l := range plain {
		accept(f.http.Serve, l)
	}
	for _, l := range secure {
		accept(f.http.ServeTLS, l)
	}
	return f
}

// failed gives the reason why it no longer listens. A nil front never fails.
func (f *front) failed() <-chan error {
	if f == nil {
		return nil
	}
	return f.errs
}

// stop closes the listeners, gives requests a while, then ends them, and returns when nothing of them is left.
func (f *front) stop(grace, linger time.Duration) {
	if f == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if f.http.Shutdown(ctx, linger) != nil {
		f.http.Close()
	}
	f.cancel()
	f.requests.Wait()
	f.serving.Wait()
}
