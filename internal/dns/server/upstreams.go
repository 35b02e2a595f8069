package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/netns"
)

const (
	rereadEvery  = 5 * time.Second
	reprobeEvery = 30 * time.Second
)

// upstreams is the list of resolvers of a zone: as given, or as the host's resolv.conf has them now.
type upstreams struct {
	log     *slog.Logger
	ns      netns.NS
	forward Forward
	own     []netip.AddrPort // where we listen: never an upstream
	keep    keeping

	flights  int // under way; the forwarder's
	list     atomic.Pointer[[]*upstream]
	contents []byte         // of the file when it was last read; load's own
	unread   bool           // it could not be read the last time; load's own
	turn     atomic.Uint32  // of RoundRobin
	suspects chan *upstream // to be probed for a loop
	probes   sync.Map       // wire name of a probe under way -> *atomic.Bool: it came back
}

func newUpstreams(cfg Config, own []netip.AddrPort, f Forward, keep keeping) *upstreams {
	us := &upstreams{log: cfg.Log, ns: cfg.UpstreamNetns, forward: f, own: own, keep: keep, suspects: make(chan *upstream, 16)}
	us.list.Store(&[]*upstream{})
	return us
}

// most is how many flights may be under way.
func (us *upstreams) most() int { return cmp.Or(us.forward.MaxConcurrent, maxFlights) }

// load sets the list from what was given or from the file, when that is new. A file that cannot be read leaves the
// list as it is.
func (us *upstreams) load() {
	addrs, changed := us.addrs()
	if !changed {
		return
	}
	list := []*upstream{}
	for _, a := range addrs {
		switch {
		case slices.Contains(us.own, a):
			us.log.Warn("dns: this server is its own upstream: left out", "upstream", a)
		default:
			list = append(list, &upstream{addr: a, ns: us.ns, tcp: us.forward.TCP, tls: us.forward.TLS, idle: make(chan idle, idleConns)})
		}
	}
	for _, u := range *us.list.Swap(&list) {
		u.retire()
	}
	us.log.Info("dns: upstreams", "for", us.forward.String(), "addresses", addrs)
}

func (us *upstreams) addrs() (addrs []netip.AddrPort, changed bool) {
	if len(us.forward.Upstreams) > 0 {
		changed, us.contents = us.contents == nil, []byte{}
		return us.forward.Upstreams, changed
	}
	b, err := os.ReadFile(us.forward.ResolvConf)
	if err != nil && !us.unread {
		us.log.Warn("dns: the list of upstreams cannot be read", "error", err)
	}
	if us.unread = err != nil; us.unread || us.contents != nil && bytes.Equal(b, us.contents) {
		return nil, false
	}
	us.contents = append([]byte{}, b...)
	return nameservers(b), true
}

// nameservers are the resolvers of a resolv.conf.
func nameservers(b []byte) (out []netip.AddrPort) {
	c, err := mdns.ClientConfigFromReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// watch keeps the list up to date and finds loops, until ctx ends.
func (us *upstreams) watch(ctx context.Context) {
	reread := time.NewTicker(rereadEvery)
	defer reread.Stop()
	reprobe := time.NewTicker(reprobeEvery)
	defer reprobe.Stop()
	for {
		select {
		case <-ctx.Done():
			for _, u := range *us.list.Load() {
				u.retire()
			}
			return
		case <-reread.C:
			us.load()
		case <-reprobe.C:
			for _, u := range *us.list.Load() {
				if u.loop.Load() {
					us.probe(ctx, u)
				}
			}
		case u := <-us.suspects:
			us.probe(ctx, u)
		}
	}
}

// probe finds out whether an upstream sends our questions back to us, which would go round until time is up. It asks
// for a name that nobody else can know (CVE-2026-26018) and sees whether it arrives here.
func (us *upstreams) probe(ctx context.Context, u *upstream) {
	var b [16]byte
	rand.Read(b[:])
	name := "\x10" + hex.EncodeToString(b[:8]) + "\x10" + hex.EncodeToString(b[8:]) + "\x00"
	var back atomic.Bool
	us.probes.Store(name, &back)
	defer us.probes.Delete(name)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := u.once(ctx, "udp", outgoing{name: name, qtype: mdns.TypeHINFO}, false)
	switch was := u.loop.Load(); {
	case back.Load() && !was:
		us.log.Warn("dns: upstream sends questions back to this server: left out until it no longer does", "upstream", u.addr)
		u.loop.Store(true)
	case !back.Load() && was && err == nil:
		us.log.Info("dns: upstream no longer sends questions back", "upstream", u.addr)
		u.loop.Store(false)
	}
}

// probed reports whether a question that arrived is a probe of ours, and remembers that it came back.
func (c *settings) probed(name []byte) bool {
	for _, r := range c.routes {
		if back, ok := r.us.probes.Load(string(name)); ok {
			back.(*atomic.Bool).Store(true)
			return true
		}
	}
	return false
}

// usable reports whether there is an upstream to ask, and if not, why.
func (us *upstreams) usable() (ok bool, reason string) {
	list := *us.list.Load()
	if len(list) == 0 {
		return false, "no upstream resolver is known (" + cmp.Or(us.forward.ResolvConf, "none was given") + ")"
	}
	for _, u := range list {
		if !u.loop.Load() {
			return true, ""
		}
	}
	return false, "every upstream resolver sends questions back to this server"
}

// suspect has an upstream probed for a loop soon.
func (us *upstreams) suspect(u *upstream) {
	select {
	case us.suspects <- u:
	default: // probes are under way
	}
}
