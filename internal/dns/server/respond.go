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
	view := r.s.cfg.Table.View()
	out, a := view.Append(out, &q.name, q.qtype, q.room(limit), r.turn)
	if a.Foreign {
		r.count.question(otherZone, q.qtype)
		return r.foreign(out, b, limit)
	}
	r.count.question(ownZone, q.qtype)
	if a.Chase != "" {
		return r.chase(out, b, limit, a, view)
	}
	r.count.reply(ownZone, int(a.Rcode))
	flags := r.s.recursion() | flagAA
	if a.Truncated {
		flags |= flagTC
	}
	return q.finish(out, flags, int(a.Rcode), a.Answers, a.Authority, a.Extra)
}

// recursion is the flag that says whether names of other zones are answered too.
func (s *Server) recursion() uint16 {
	if s.forward == nil {
		return 0
	}
	return flagRA
}

// foreign answers a question of another zone: from the cache, or later, when an upstream has.
func (r *responder) foreign(out, b []byte, limit int) []byte {
	q, f := &r.q, r.s.forward
	switch {
	case f == nil:
		r.count.reply(otherZone, dns.RcodeRefused)
		return q.finish(out, 0, dns.RcodeRefused, 0, 0, 0)
	case q.qtype == dns.TypeANY: // RFC 8482
		r.count.reply(otherZone, dns.RcodeSuccess)
		return q.finish(dns.AppendANY(out), flagRA, dns.RcodeSuccess, 1, 0, 0)
	case q.qtype == dns.TypeHINFO && f.upstreams.probed(q.name.Wire()):
		return q.finish(out, flagRA, dns.RcodeNXDomain, 0, 0, 0)
	}
	r.key = key(r.key, q.name.Wire(), q.qtype, q)
	now := time.Now()
	r.count.cacheAsked.Add(1)
	if a := f.cache.get(r.key, now); a != nil {
		r.count.reply(otherZone, a.rcode)
		return forwarded(out, q, a, limit, now)
	}
	r.count.cacheMissed.Add(1)
	f.ask(string(r.key), &pending{q: *q, head: bytes.Clone(b[:q.end]), limit: limit, to: r.from.later(), count: r.count})
	return out[:0]
}

// chase looks up the target of an ExternalName and answers with what was found.
func (r *responder) chase(out, b []byte, limit int, a dns.Answer, view dns.View) []byte {
	q, f := &r.q, r.s.forward
	if f == nil { // the CNAME alone: the client may know where to ask
		r.count.reply(ownZone, dns.RcodeSuccess)
		return q.finish(out, flagAA, dns.RcodeSuccess, a.Answers, 0, 0)
	}
	p := &pending{
		q: *q, head: bytes.Clone(b[:q.end]), limit: limit, count: r.count,
		target: a.Chase, chain: bytes.Clone(out[q.end:]), links: a.Answers, view: view,
	}
	r.key = key(r.key, []byte(a.Chase), q.qtype, q)
	now := time.Now()
	r.count.cacheAsked.Add(1)
	if known := f.cache.get(r.key, now); known != nil {
		return p.reply(out, known, now)
	}
	r.count.cacheMissed.Add(1)
	p.to = r.from.later()
	f.ask(string(r.key), p)
	return out[:0]
}
