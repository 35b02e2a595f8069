// Package server answers DNS questions over UDP and TCP: those of the cluster's own zones from a dns.Table, all
// others through the host's resolvers.
//
// One goroutine per UDP socket reads, answers and writes in batches; nothing is started or allocated by us for a
// question of the own zone, and a question for an upstream never holds one up. Sockets are bound to explicit
// addresses, so that a reply leaves from the address which was asked, and beside other programs' port 53.
//
// It knows no Services: package dns makes the table. It does not validate DNSSEC and speaks no DNS over TLS.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"minato/internal/dns"
	"minato/internal/netns"
)

// Config is what a Server needs. Netns, Addrs and Table are required.
type Config struct {
	Netns netns.NS     // namespace in which it listens
	Addrs []netip.Addr // addresses to listen on; the server adds them to lo and removes those it added
	Port  uint16       // 0: 53
	Table *dns.Table   // answers of the own zones
	Log   *slog.Logger // nil: slog.Default()

	Upstreams     []netip.AddrPort // resolvers for all other names, in order of preference
	ResolvConf    string           // where they are listed when none is given; both empty: other names are refused
	UpstreamNetns netns.NS         // namespace from which they are asked: the host's, where 127.0.0.53 works

	Sockets int // UDP sockets for each address; 0: one, or one for each processor from three on
}

// Server is the DNS server of one node. Make it with New and call Run once. It is a prometheus.Collector.
type Server struct {
	cfg   Config
	log   *slog.Logger
	state atomic.Pointer[string] // why it does not answer yet; nil: it does

	upstreams *upstreams // nil: other names are refused
	forward   *forwarder // the same; it is there from Run on
	cached    cache

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
	s := &Server{cfg: cfg, log: cfg.Log}
	if len(cfg.Upstreams) > 0 || cfg.ResolvConf != "" {
		var own []netip.AddrPort
		for _, a := range cfg.Addrs {
			own = append(own, netip.AddrPortFrom(a, cfg.Port))
		}
		s.upstreams = newUpstreams(cfg, own)
	}
	s.not("not started")
	return s, nil
}

func (s *Server) not(reason string) { s.state.Store(&reason) }

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
	if s.upstreams == nil {
		return false, "no upstream resolver is configured"
	}
	return s.upstreams.usable()
}

// Run listens until ctx ends. It returns nil then, and an error when it cannot listen. All that it started and added
// is gone when it returns.
func (s *Server) Run(ctx context.Context) (err error) {
	s.not("starting to listen")
	defer s.not("stopped")
	added, err := addAddrs(s.cfg.Netns, s.cfg.Addrs)
	defer func() { err = errors.Join(err, removeAddrs(s.cfg.Netns, added)) }()
	if err != nil {
		return err
	}
	socks, err := s.listen(ctx)
	defer socks.close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	if s.upstreams != nil {
		s.upstreams.load()
		s.forward = newForwarder(ctx, s.upstreams, &s.cached)
		wg.Go(func() { s.upstreams.watch(ctx) })
		defer s.forward.wg.Wait()
	}
	for _, u := range socks.udp {
		wg.Go(func() {
			if err := s.serveUDP(u); err != nil {
				cancel(err)
			}
		})
	}
	for _, l := range socks.tcp {
		wg.Go(func() {
			if err := s.serveTCP(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	s.state.Store(nil)
	s.log.Info("dns: listening", "addresses", s.cfg.Addrs, "port", s.cfg.Port, "namespace", s.cfg.Netns.String(), "sockets", len(socks.udp))
	<-ctx.Done()
	s.not("stopping")
	socks.close()
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("serving DNS: %w", cause)
	}
	return nil
}
