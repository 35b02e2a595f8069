package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"minato/internal/dns"
)

// Settings are what a Corefile says of names outside the cluster's own zones. They can be changed while the server
// runs. Names are fully qualified, in any spelling.
type Settings struct {
	Forward   []Forward  // the longest zone that holds a name counts; none: other names are refused
	Hosts     *Hosts     // nil: none
	Rewrites  []Rewrite  // the first that matches counts, and those behind one that says so
	Templates []Template // the first that matches answers

	// Kept and Denied bound how long answers of upstreams are used again; 0: 30 s, negative: not at all.
	Kept, Denied time.Duration

	LogQuestions bool          // each of them
	LogErrors    bool          // forwarded questions that got no answer
	Lameduck     time.Duration // for how long a server that is told to stop goes on answering
}

// Forward says who is asked about the names of a zone: "." is all, "corp.example" is a stub domain.
type Forward struct {
	Zone       string
	Upstreams  []netip.AddrPort // in order of preference
	ResolvConf string           // where they are listed when none is given
	Except     []string         // zones in it that this does not count for
	TCP        bool             // asked over TCP only
	TLS        *TLS             // asked over TLS only; nil: over UDP and TCP
	Policy     Policy
	// MaxConcurrent is how many different questions may be on their way at a time; more are refused. 0: 1000, and SERVFAIL.
	MaxConcurrent int
}

// Policy says which of the upstreams that answer in good time is asked first.
type Policy uint8

// The policies of CoreDNS's plugin forward.
const (
	Sequential Policy = iota // in the order given
	RoundRobin
	Random
)

// Hosts are names with addresses, as in /etc/hosts. They go before every zone, also the cluster's own.
type Hosts struct {
	Addrs       map[string][]netip.Addr
	TTL         int      // seconds
	Fallthrough []string // zones whose names that are not here are looked up elsewhere; others get SERVFAIL, as with CoreDNS
}

// settings are Settings ready for use. They are immutable, but for the state of upstreams.
type settings struct {
	Settings
	routes    []*route // the longest zone first
	hosts     *hosts
	rewrites  []rewrite
	templates []*replyTemplate
	keep      keeping
	special   bool // questions need a closer look; see responder.special
}

// route is the way of the names of a zone.
type route struct {
	forward Forward
	zone    string   // wire, lower case
	except  []string // the same
	us      *upstreams
}

// Configure changes the settings. Nothing changes when it fails. What was asked of upstreams before goes on.
func (s *Server) Configure(c Settings) error {
	n, err := c.compile()
	if err != nil {
		return err
	}
	for _, r := range n.routes {
		r.us = newUpstreams(s.cfg, s.own(), r.forward, n.keep)
		r.us.load()
	}
	s.errors.on.Store(c.LogErrors)
	s.settings.Store(n)
	s.cached.clear()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// Check reports why Configure would not take the settings.
func (c Settings) Check() error {
	_, err := c.compile()
	return err
}

// compile makes settings ready for use, but for their upstreams.
func (c Settings) compile() (n *settings, err error) {
	n = &settings{Settings: c, keep: keeping{limit(c.Kept), limit(c.Denied)}}
	if n.hosts, err = newHosts(c.Hosts); err != nil {
		return nil, err
	}
	if n.rewrites, err = newRewrites(c.Rewrites); err != nil {
		return nil, err
	}
	if n.templates, err = newTemplates(c.Templates); err != nil {
		return nil, err
	}
	for _, f := range c.Forward {
		zone, ok := dns.ParseName(f.Zone)
		if !ok {
			return nil, fmt.Errorf("forward %q: not a domain name", f.Zone)
		}
		except, err := wires(f.Except)
		if err != nil {
			return nil, fmt.Errorf("forward %s: except: %w", f.Zone, err)
		}
		n.routes = append(n.routes, &route{forward: f, zone: zone, except: except})
	}
	slices.SortStableFunc(n.routes, func(a, b *route) int { return len(b.zone) - len(a.zone) })
	n.special = c.LogQuestions || n.hosts != nil || len(n.rewrites)+len(n.templates) > 0
	return n, nil
}

func limit(d time.Duration) time.Duration {
	switch {
	case d == 0:
		return cacheMax
	case d < 0:
		return 0
	}
	return d
}

// own are the addresses where the server listens: never an upstream.
func (s *Server) own() (out []netip.AddrPort) {
	for _, a := range s.cfg.Addrs {
		out = append(out, netip.AddrPortFrom(a, s.cfg.Port))
	}
	return out
}

// route finds the way of a name, nil when there is none.
func (c *settings) route(name []byte) *route {
	for _, r := range c.routes {
		if !within(name, r.zone) {
			continue
		}
		if _, out := longest(r.except, name); !out {
			return r
		}
	}
	return nil
}

// within reports whether a wire name is a zone's apex or below it.
func within(name []byte, zone string) bool {
	for at := 0; len(name)-at >= len(zone); at += 1 + int(name[at]) {
		if string(name[at:]) == zone {
			return true
		}
		if name[at] == 0 {
			break
		}
	}
	return false
}

// attend keeps the upstreams of the present settings up to date, until ctx ends.
func (s *Server) attend(ctx context.Context) {
	for ctx.Err() == nil {
		current, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for _, r := range s.settings.Load().routes {
			wg.Go(func() { r.us.watch(current) })
		}
		select {
		case <-ctx.Done():
		case <-s.changed:
		}
		cancel()
		wg.Wait()
	}
}

// defaults are the settings of a server without a Corefile.
func (c *Config) defaults() Settings {
	if len(c.Upstreams) == 0 && c.ResolvConf == "" {
		return Settings{}
	}
	return Settings{LogErrors: true, Forward: []Forward{{Zone: ".", Upstreams: c.Upstreams, ResolvConf: c.ResolvConf}}}
}

// text of a zone for messages.
func (f Forward) String() string {
	if f.Zone == "." {
		return "all other names"
	}
	return strings.TrimSuffix(f.Zone, ".")
}
