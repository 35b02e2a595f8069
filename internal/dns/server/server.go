// Package server answers DNS questions over UDP and TCP: those of the cluster's own zones from a dns.Table, all
// others through the host's resolvers.
//
// One goroutine per UDP socket reads, answers and writes in batches; nothing is started or allocated by us for a
// question of the own zone, and a question for an upstream never holds one up. Sockets are bound to explicit
// addresses, so that a reply leaves from the address which was asked, and beside other programs' port 53.
//
// It knows no Services: package dns makes the table. It does not validate DNSSEC, and speaks TLS with upstreams only.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"minato/internal/dns"
	"minato/internal/handover"
	"minato/internal/netns"
)

// Config is what a Server needs. Netns, Addrs and Table are required.
type Config struct {
	Netns netns.NS     // namespace in which it listens
	Addrs []netip.Addr // addresses to listen on; the server adds them to lo and removes those it added
	Port  uint16       // 0: 53
	Table *dns.Table   // answers of the own zones
	Log   *slog.Logger // nil: slog.Default()

	// Clients are the ranges from which questions are answered, beside the server's own addresses; others are refused.
	// None: all are answered.
	Clients []netip.Prefix

	// These stand until Configure says otherwise.
	Upstreams     []netip.AddrPort // resolvers for all other names, in order of preference
	ResolvConf    string           // where they are listed when none is given; both empty: other names are refused
	UpstreamNetns netns.NS         // namespace from which they are asked: the host's, where 127.0.0.53 works

	HTTP     HTTP
	Handover *handover.Set // sockets of a predecessor and for a successor; nil: neither

	Sockets int // UDP sockets for each address; 0: one, or one for each processor from three on
}

// Server is the DNS server of one node. Make it with New and call Run once. It is a prometheus.Collector.
type Server struct {
	cfg   Config
	log   *slog.Logger
	state atomic.Pointer[string] // why it does not answer yet; nil: it does

	settings atomic.Pointer[settings]
	changed  chan struct{}             // holds a value when settings are new
	forward  atomic.Pointer[forwarder] // there from Run on
	cached   cache
	errors   errorLog
	refused  atomic.Uint64 // questions of clients that are not served

	countersMu sync.Mutex
	counters   []*counters
}

// New makes a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	if len(cfg.Addrs) == 0 || cfg.Table == nil {
		return nil, errors.New("dns server: an address and a table are needed")
	}
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Sockets == 0 {
		cfg.Sockets = 1
		if n := runtime.GOMAXPROCS(0); n > 2 {
			cfg.Sockets = n
		}
	}
	s := &Server{cfg: cfg, log: cfg.Log, changed: make(chan struct{}, 1)}
	s.errors.log = cfg.Log
	if err := s.Configure(cfg.defaults()); err != nil {
		return nil, fmt.Errorf("dns server: %w", err)
	}
	s.not("not started")
	return s, nil
}

func (s *Server) not(reason string) { s.state.Store(&reason) }

// admits reports whether questions of a client are answered.
func (s *Server) admits(client netip.Addr) bool {
	if len(s.cfg.Clients) == 0 || client.IsLoopback() {
		return true
	}
	for _, p := range s.cfg.Clients {
		if p.Contains(client) {
			return true
		}
	}
	return slices.Contains(s.cfg.Addrs, client)
}

// Ready reports whether questions about the own zones are answered, and if not, why.
func (s *Server) Ready() (ok bool, reason string) {
	if r := s.state.Load(); r != nil {
		return false, *r
	}
	return s.cfg.Table.Ready()
}

// Forwarding reports whether names outside the own zones can be asked for, and if not, why. It is apart from Ready: a
// machine without a resolver still has a working cluster.
func (s *Server) Forwarding() (ok bool, reason string) {
	r := s.settings.Load().route([]byte{0})
	if r == nil {
		return false, "no upstream resolver is configured"
	}
	return r.us.usable()
}

// drain is how long upstreams have for the last questions when the server stops.
const drain = 2 * time.Second

// Run listens until ctx ends. It returns nil then, and an error when it cannot listen. All that it started and added
// is gone when it returns.
func (s *Server) Run(ctx context.Context) (err error) {
	s.not("starting to listen")
	defer s.not("stopped")
	added, err := addAddrs(s.cfg.Netns, s.cfg.Addrs)
	defer func() {
		if !s.cfg.Handover.Handed() { // else the successor serves at them
			err = errors.Join(err, removeAddrs(s.cfg.Netns, added))
		}
	}()
	if err != nil {
		return err
	}
	socks, err := s.listen(ctx)
	defer socks.close()
	defer func() {
		if len(socks.redirects) > 0 && !s.cfg.Handover.Handed() {
			err = errors.Join(err, setRedirects(s.cfg.Netns, nil))
		}
	}()
	if err != nil {
		return err
	}
	if socks.inherited {
		s.awaitTable(ctx)
	}
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	flying, land := context.WithCancel(context.WithoutCancel(ctx))
	defer land()
	f := newForwarder(flying, &s.cached)
	s.forward.Store(f)
	wg.Go(func() { s.attend(serving) })
	wg.Go(func() { s.serveHTTP(serving) })
	for _, u := range socks.udp {
		wg.Go(func() {
			if err := s.serveUDP(u); err != nil {
				stop(err)
			}
		})
	}
	for _, l := range socks.tcp {
		wg.Go(func() {
			if err := s.serveTCP(serving, l); err != nil {
				stop(err)
			}
		})
	}
	s.state.Store(nil)
	s.log.Info("dns: listening", "addresses", s.cfg.Addrs, "port", s.cfg.Port, "namespace", s.cfg.Netns.String(), "sockets", len(socks.udp))
	s.awaitEnd(ctx, serving)
	stop(nil)
	s.not("stopping")
	socks.stop()
	defer time.AfterFunc(drain, land).Stop()
	wg.Wait()
	f.end() // while the sockets are there to send the last answers
	socks.close()
	if cause := context.Cause(serving); !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("serving DNS: %w", cause)
	}
	return nil
}

// awaitTable leaves questions to the predecessor until there is something to answer with.
func (s *Server) awaitTable(ctx context.Context) {
	const look, most = 2 * time.Millisecond, time.Minute
	s.not("waiting for the first complete reading of Services, while the predecessor answers")
	for deadline := time.Now().Add(most); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(look) {
		if ok, _ := s.cfg.Table.Ready(); ok {
			return
		}
	}
}

// awaitEnd waits until the server is told to stop, and then, unless a successor answers, for as long as the settings
// say that it goes on; or until it can serve no more.
func (s *Server) awaitEnd(ctx, serving context.Context) {
	select {
	case <-ctx.Done():
	case <-serving.Done():
		return
	}
	if d := s.settings.Load().Lameduck; d > 0 && !s.cfg.Handover.Handed() {
		s.not("about to stop")
		select {
		case <-time.After(d):
		case <-serving.Done():
		}
	}
}
