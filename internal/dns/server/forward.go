package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

const (
	maxFlights = 1000            // different questions on their way to upstreams, CoreDNS's max_concurrent
	maxWaiters = 10_000          // clients that wait for them
	budget     = 5 * time.Second // for one question: resolvers of clients give up then
)

// forwarder asks upstreams. Equal questions that are under way at the same time are asked once, which bounds the work
// and takes away the odds of a birthday attack (CVE-2023-30464). It is safe for concurrent use.
type forwarder struct {
	cache     *cache
	upstreams *upstreams

	ctx context.Context // ends all flights
	wg  sync.WaitGroup

	mu      sync.Mutex
	flights map[string][]*pending
	waiters int
}

// pending is a client's question that waits for an upstream.
type pending struct {
	q     query
	head  []byte // its header and question
	limit int
	to    sender
	count *counters

	target string   // of an ExternalName, the name to ask for; "" for the client's own question
	chain  []byte   // CNAMEs of the own zone that lead to target
	links  uint16   // how many
	view   dns.View // that they are from
}

// key names a question among flights and in the cache: name, type, and the flags that change the answer.
func key(b []byte, name []byte, qtype uint16, q *query) []byte {
	b = append(b[:0], name...)
	return append(b, byte(qtype>>8), byte(qtype), do(q.do)|byte(q.flags&flagCD))
}

// ask has the question behind key answered and p's client told.
func (f *forwarder) ask(key string, p *pending) {
	f.mu.Lock()
	_, under := f.flights[key]
	if f.waiters >= maxWaiters || !under && len(f.flights) >= maxFlights || f.ctx.Err() != nil {
		f.mu.Unlock()
		p.to.send(p.reply(nil, failure(time.Now()), time.Now()))
		return
	}
	f.waiters++
	f.flights[key] = append(f.flights[key], p)
	if !under {
		f.wg.Go(func() { f.fly(key) })
	}
	f.mu.Unlock()
}

// fly asks upstreams and tells every client that waits.
func (f *forwarder) fly(key string) {
	ctx, cancel := context.WithTimeout(f.ctx, budget)
	defer cancel()
	n := len(key) - 3
	qtype := uint16(key[n])<<8 | uint16(key[n+1])
	a := f.upstreams.resolve(ctx, outgoing{name: key[:n], qtype: qtype, do: key[n+2]&0x80 != 0, cd: key[n+2]&flagCD != 0})
	f.cache.put(key, a)
	f.mu.Lock()
	waiting := f.flights[key]
	delete(f.flights, key)
	f.waiters -= len(waiting)
	f.mu.Unlock()
	now := time.Now()
	for _, p := range waiting {
		p.to.send(p.reply(nil, a, now))
	}
}

// reply is the message that tells p's client about answer a.
func (p *pending) reply(out []byte, a *answer, now time.Time) []byte {
	out = p.q.start(out, p.head)
	if p.target == "" {
		p.count.reply(otherZone, a.rcode)
		return forwarded(out, &p.q, a, p.limit, now)
	}
	p.count.reply(ownZone, dns.RcodeSuccess)
	joined, err := p.join(a, now)
	if err != nil || a.rcode != dns.RcodeSuccess && a.rcode != dns.RcodeNXDomain {
		// A target that cannot be looked up makes the answer empty, as with CoreDNS.
		out, empty := p.view.AppendEmpty(out, &p.q.name)
		return p.q.finish(out, flagAA|flagRA, dns.RcodeSuccess, 0, empty.Authority, 0)
	}
	out = forwarded(out, &p.q, joined, p.limit, now)
	out[2] |= flagAA >> 8
	return out
}

// join is the answer for an ExternalName: the CNAMEs of the own zone, and the records of their target.
func (p *pending) join(a *answer, now time.Time) (*answer, error) {
	question := p.head[headerLen:]
	m, err := message(question, p.chain, p.links)
	if err != nil {
		return nil, err
	}
	typeAndClass := string(question[len(question)-4:])
	target, err := message([]byte(p.target+typeAndClass), a.append(nil, now), a.answers)
	if err != nil {
		return nil, err
	}
	m.Answer = append(m.Answer, target.Answer...)
	return newAnswer(m, now)
}

// message reads a question and the answers behind it.
func message(question, body []byte, answers uint16) (*mdns.Msg, error) {
	b := make([]byte, headerLen, headerLen+len(question)+len(body))
	binary.BigEndian.PutUint16(b[4:], 1)
	binary.BigEndian.PutUint16(b[6:], answers)
	b = append(append(b, question...), body...)
	m := new(mdns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("read an answer again: %w", err)
	}
	return m, nil
}

// forwarded completes a reply to q with an upstream's answer.
func forwarded(out []byte, q *query, a *answer, limit int, now time.Time) []byte {
	flags := uint16(flagRA)
	if a.authentic && q.do {
		flags |= flagAD
	}
	start := len(out)
	out = a.append(out, now)
	counts := [3]uint16{a.answers, a.authority, a.extra}
	if len(out) > q.room(limit) {
		total := int(a.answers) + int(a.authority) + int(a.extra)
		body, left := dns.Fit(out[start:], total, q.room(limit)-start)
		out = out[:start+len(body)]
		for i := range counts {
			counts[i] = min(counts[i], uint16(left))
			left -= int(counts[i])
		}
		if counts[0] < a.answers || counts[1] < a.authority {
			flags |= flagTC
		}
	}
	return q.finish(out, flags, a.rcode, counts[0], counts[1], counts[2])
}

// newForwarder makes a forwarder whose flights end with ctx.
func newForwarder(ctx context.Context, us *upstreams, c *cache) *forwarder {
	return &forwarder{ctx: ctx, flights: map[string][]*pending{}, upstreams: us, cache: c}
}
