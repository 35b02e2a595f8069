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
	rereadEvery   = 5 * time.Second
	reprobeEvery  = 30 * time.Second
	firstPatience = time.Second // for an answer, in the first round; lost packets are the common case
	patience      = 2 * time.Second
	rounds        = 3
)

// upstreams is the list of resolvers: as given, or as the host's resolv.conf has them now.
type upstreams struct {
	log   *slog.Logger
	ns    netns.NS
	given []netip.AddrPort
	file  string
	own   []netip.AddrPort // where we listen: never an upstream

	list     atomic.Pointer[[]*upstream]
	contents []byte         // of file when it was last read; watch's own
	unread   bool           // it could not be read the last time; load's own
	suspects chan *upstream // to be probed for a loop
	probes   sync.Map       // wire name of a probe under way -> *atomic.Bool: it came back
}

func newUpstreams(cfg Config, own []netip.AddrPort) *upstreams {
	us := &upstreams{
		log: cfg.Log, ns: cfg.UpstreamNetns, given: cfg.Upstreams, file: cfg.ResolvConf, own: own,
		suspects: make(chan *upstream, 16),
	}
	us.list.Store(&[]*upstream{})
	return us
}

// load sets the list from what was given or from the file, when that is new. A file that cannot be read leaves the
// list as it is.
func (us *upstreams) load() {
	addrs, changed := us.addrs()
	if !changed {
		return
	}
	list := []*upstream{}
	for _, a := range addrs {
		if slices.Contains(us.own, a) {
			us.log.Warn("dns: this server is its own upstream: left out", "upstream", a)
			continue
		}
		list = append(list, &upstream{addr: a, ns: us.ns})
	}
	us.list.Store(&list)
	us.log.Info("dns: upstreams", "addresses", addrs)
}

func (us *upstreams) addrs() (addrs []netip.AddrPort, changed bool) {
	if len(us.given) > 0 {
		changed, us.contents = us.contents == nil, []byte{}
		return us.given, changed
	}
	b, err := os.ReadFile(us.file)
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
	_, err := u.over(ctx, "udp", outgoing{name: name, qtype: mdns.TypeHINFO}, false)
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
func (us *upstreams) probed(name []byte) bool {
	back, ok := us.probes.Load(string(name))
	if ok {
		back.(*atomic.Bool).Store(true)
	}
	return ok
}

// usable reports whether there is an upstream to ask, and if not, why.
func (us *upstreams) usable() (ok bool, reason string) {
	list := *us.list.Load()
	if len(list) == 0 {
		return false, "no upstream resolver is known (" + cmp.Or(us.file, "none was given") + ")"
	}
	for _, u := range list {
		if !u.loop.Load() {
			return true, ""
		}
	}
	return false, "every upstream resolver sends questions back to this server"
}

// resolve asks one upstream after the other until one gives an answer, which may be that the name does not exist. It
// never returns nil: the answer is a failure when there is none within ctx.
func (us *upstreams) resolve(ctx context.Context, o outgoing) *answer {
	var last *answer // of an upstream that would not answer
	refused := map[*upstream]bool{}
	for round := range rounds {
		asked := false
		for _, u := range us.order(time.Now()) {
			if refused[u] || ctx.Err() != nil {
				continue
			}
			asked = true
			a, err := us.try(ctx, u, o, round)
			switch {
			case err != nil:
			case a.rcode == mdns.RcodeSuccess || a.rcode == mdns.RcodeNameError:
				return a
			default:
				refused[u] = true
				last = a
			}
		}
		if !asked {
			break
		}
	}
	if last != nil {
		return last
	}
	return failure(time.Now())
}

// try asks one upstream.
func (us *upstreams) try(ctx context.Context, u *upstream, o outgoing, round int) (*answer, error) {
	limit := patience
	if round == 0 {
		limit = firstPatience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if u.asked.CompareAndSwap(false, true) {
		us.suspect(u)
	}
	m, err := u.ask(ctx, o)
	now := time.Now()
	var a *answer
	if err == nil {
		a, err = newAnswer(m, now)
	}
	if u.note(err, now) {
		us.log.Warn("dns: upstream does not answer", "upstream", u.addr, "error", err)
		us.suspect(u)
	}
	return a, err
}

// suspect has an upstream probed for a loop soon.
func (us *upstreams) suspect(u *upstream) {
	select {
	case us.suspects <- u:
	default: // probes are under way
	}
}

// order is the list with those that work first, in the order in which it was given. Loops are left out.
func (us *upstreams) order(now time.Time) []*upstream {
	var up, down []*upstream
	for _, u := range *us.list.Load() {
		switch {
		case u.loop.Load():
		case u.down.Load() > now.UnixNano():
			down = append(down, u)
		default:
			up = append(up, u)
		}
	}
	return append(up, down...)
}
