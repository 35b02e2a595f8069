package server

import (
	"bytes"
	"net/netip"
	"time"

	"minato/internal/dns"
)

// client is where a message came from.
type client interface {
	addr() netip.Addr
	// later promises one reply after respond has returned.
	later() sender
}

// sender delivers a reply after respond has returned.
type sender interface{ send(reply []byte) }

// responder answers messages one after the other. Each belongs to one goroutine.
type responder struct {
	s     *Server
	from  client
	count *counters
	q     query
	turn  uint32
	key   []byte
	zone  int       // of the last question: ownZone or otherZone
	began time.Time // when the present questions were read

	rewritten bool // the question is another than the client's
}

// respond writes the reply to message b into out and returns it. It is empty when there is none, or when it comes
// later through the sender.
func (r *responder) respond(out, b []byte, limit int) []byte {
	q := &r.q
	if !q.parse(b) {
		return out[:0]
	}
	if limit < maxTCP {
		limit = q.size
	}
	out = q.start(out, b)
	if q.rcode != 0 {
		r.count.reply(otherZone, q.rcode)
		return q.finish(out, 0, q.rcode, 0, 0, 0)
	}
	r.turn++
	set := r.s.settings.Load()
	if set.special {
		if reply, done := r.special(set, out, b, limit); done {
			return reply
		}
	}
	view := r.s.cfg.Table.View()
	out, a := view.Append(out, &q.name, q.qtype, q.room(limit), r.turn)
	if a.Foreign {
		r.zone = otherZone
		r.count.question(otherZone, q)
		return r.foreign(set, out, b, limit)
	}
	r.zone = ownZone
	r.count.question(ownZone, q)
	if a.Chase != "" {
		return r.chase(set, out, b, limit, a, view)
	}
	r.count.reply(ownZone, int(a.Rcode))
	flags := set.recursion() | flagAA
	if a.Truncated {
		flags |= flagTC
	}
	return q.finish(out, flags, int(a.Rcode), a.Answers, a.Authority, a.Extra)
}

// special is what a Corefile can add: log each question, ask another one in its place, answer from a
// template or a list of hosts.
func (r *responder) special(set *settings, out, b []byte, limit int) (reply []byte, done bool) {
	q := &r.q
	if set.LogQuestions {
		r.s.log.Info("dns: question", "name", q.name.String(), "type", typeText(q.qtype), "client", r.from.addr())
	}
	if !r.rewritten {
		if in, ok := set.rewrite(&q.name, q.qtype); ok {
			return r.instead(out, b, limit, in), true
		}
	}
	if reply, done := r.template(set, out, limit); done {
		return reply, true
	}
	if set.hosts != nil {
		return set.hosts.respond(r, out, limit)
	}
	return nil, false
}

// refuse is the reply to a client that is not served.
func (r *responder) refuse(out, b []byte) []byte {
	q := &r.q
	if !q.parse(b) {
		return out[:0]
	}
	r.s.refused.Add(1)
	r.count.reply(otherZone, dns.RcodeRefused)
	return q.finish(q.start(out, b), 0, dns.RcodeRefused, 0, 0, 0)
}

// recursion is the flag that says whether names of other zones are answered too.
func (c *settings) recursion() uint16 {
	if len(c.routes) == 0 {
		return 0
	}
	return flagRA
}

// foreign answers a question of another zone: from the cache, or later, when an upstream has.
func (r *responder) foreign(set *settings, out, b []byte, limit int) []byte {
	q, f, way := &r.q, r.s.forward.Load(), set.route(r.q.name.Wire())
	switch {
	case way == nil || f == nil:
		r.count.reply(otherZone, dns.RcodeRefused)
		return q.finish(out, set.recursion(), dns.RcodeRefused, 0, 0, 0)
	case q.qtype == dns.TypeANY: // RFC 8482
		r.count.reply(otherZone, dns.RcodeSuccess)
		return q.finish(dns.AppendANY(out), flagRA, dns.RcodeSuccess, 1, 0, 0)
	case q.qtype == dns.TypeHINFO && set.probed(q.name.Wire()):
		return q.finish(out, flagRA, dns.RcodeNXDomain, 0, 0, 0)
	}
	r.key = key(r.key, q.name.Wire(), q.qtype, q)
	now := time.Now()
	if a := r.cached(way.us, now); a != nil {
		r.count.reply(otherZone, a.rcode)
		return forwarded(out, q, a, limit, now)
	}
	f.ask(way.us, string(r.key), r.pending(b, limit))
	return out[:0]
}

// cached looks for r.key in the cache.
func (r *responder) cached(us *upstreams, now time.Time) *answer {
	f := r.s.forward.Load()
	r.count.cacheAsked.Add(1)
	a, renew := f.cache.get(r.key, now)
	if a == nil {
		r.count.cacheMissed.Add(1)
		return nil
	}
	if r.count.cacheHit(a); renew {
		f.renew(us, string(r.key))
	}
	return a
}

// pending is the question as it waits for an upstream.
func (r *responder) pending(b []byte, limit int) *pending {
	return &pending{
		q: r.q, head: bytes.Clone(b[:r.q.end]), limit: limit, to: r.from.later(), client: r.from.addr(), count: r.count, log: &r.s.errors, began: r.began,
	}
}

// chase looks up the target of an ExternalName and answers with what was found.
func (r *responder) chase(set *settings, out, b []byte, limit int, a dns.Answer, view dns.View) []byte {
	q, f, way := &r.q, r.s.forward.Load(), set.route([]byte(a.Chase))
	if way == nil || f == nil { // the CNAME alone: the client may know where to ask
		r.count.reply(ownZone, dns.RcodeSuccess)
		return q.finish(out, flagAA, dns.RcodeSuccess, a.Answers, 0, 0)
	}
	chain := bytes.Clone(out[q.end:])
	r.key = key(r.key, []byte(a.Chase), q.qtype, q)
	now := time.Now()
	known := r.cached(way.us, now)
	var p *pending
	if known == nil {
		p = r.pending(b, limit)
	} else {
		p = &pending{q: *q, head: bytes.Clone(b[:q.end]), limit: limit, count: r.count, log: &r.s.errors}
	}
	p.target, p.chain, p.links, p.view = a.Chase, chain, a.Answers, view
	if known != nil {
		return p.reply(out, known, now)
	}
	f.ask(way.us, string(r.key), p)
	return out[:0]
}
