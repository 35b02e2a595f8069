package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

const (
	maxFlights = 1000            // different questions on their way to the upstreams of a zone; see Forward
	maxWaiters = 10_000          // clients that wait for them
	budget     = 5 * time.Second // for one question: resolvers of clients give up then

	maxPerClient = 200                     // waiting questions of one client, so that it leaves room for others
	staleAfter   = 1800 * time.Millisecond // a client has waited long (RFC 8767, 5)
)

// forwarder asks upstreams. Equal questions that are under way at the same time are asked once, which bounds the work
// and takes away the odds of a birthday attack (CVE-2023-30464). It is safe for concurrent use.
type forwarder struct {
	cache *cache

	ctx context.Context // ends all flights
	wg  sync.WaitGroup

	mu      sync.Mutex
	flights map[string]*flight
	waiters int
	ended   bool
	clients map[netip.Addr]int // waiters of each
	shed    atomic.Uint64      // questions for which there was no room
	renewed atomic.Uint64      // answers that were asked for again before their time was over
	stale   atomic.Uint64      // answers that were used after their time
}

// newForwarder makes a forwarder whose flights end with ctx.
func newForwarder(ctx context.Context, c *cache) *forwarder {
	return &forwarder{ctx: ctx, flights: map[string]*flight{}, clients: map[netip.Addr]int{}, cache: c}
}

// end waits for the flights. New questions are answered with SERVFAIL.
func (f *forwarder) end() {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.wg.Wait()
}

// flight is a question that upstreams are asked.
type flight struct {
	us      *upstreams
	key     string
	waiting []*pending // under forwarder.mu
}

// pending is a client's question that waits for an upstream.
type pending struct {
	q      query
	head   []byte // its header and question
	limit  int
	to     sender
	client netip.Addr
	count  *counters
	log    *errorLog
	began  time.Time

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

// ask has the question behind key answered by us, and p's client told. Beyond the limit of a Corefile the answer is
// REFUSED, as with CoreDNS, beyond one of ours SERVFAIL.
func (f *forwarder) ask(us *upstreams, key string, p *pending) {
	f.mu.Lock()
	fl := f.flights[key]
	full := fl == nil && us.flights >= us.most()
	if full || f.waiters >= maxWaiters || f.clients[p.client] >= maxPerClient || f.ended {
		f.mu.Unlock()
		f.shed.Add(1)
		a := failure(time.Now())
		if full && us.forward.MaxConcurrent > 0 {
			a.rcode = dns.RcodeRefused
		}
		p.to.send(p.reply(nil, a, time.Now()))
		return
	}
	f.waiters++
	f.clients[p.client]++
	if fl == nil {
		fl = f.start(us, key)
	}
	fl.waiting = append(fl.waiting, p)
	f.mu.Unlock()
}

// start begins a flight. f.mu is held.
func (f *forwarder) start(us *upstreams, key string) *flight {
	fl := &flight{us: us, key: key}
	f.flights[key] = fl
	us.flights++
	f.wg.Go(func() { f.fly(fl) })
	return fl
}

// renew asks again for what is in the cache and will soon be asked for, when there is room.
func (f *forwarder) renew(us *upstreams, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, under := f.flights[key]; under || us.flights >= us.most()/2 || f.ended {
		return
	}
	f.renewed.Add(1)
	f.start(us, key)
}

// fly asks upstreams and tells every client that waits. What was known before is used when they do not answer, and
// for clients that have waited long.
func (f *forwarder) fly(fl *flight) {
	key := fl.key
	ctx, cancel := context.WithTimeout(f.ctx, budget)
	defer cancel()
	n := len(key) - 3
	qtype := uint16(key[n])<<8 | uint16(key[n+1])
	old := f.cache.stale([]byte(key), time.Now())
	if old != nil {
		var wg sync.WaitGroup
		defer wg.Wait()
		answered, done := context.WithCancel(ctx)
		defer done()
		wg.Go(func() {
			select {
			case <-answered.Done():
			case <-time.After(staleAfter):
				f.tell(fl, old, false)
			}
		})
	}
	a := fl.us.resolve(ctx, outgoing{name: key[:n], qtype: qtype, do: key[n+2]&0x80 != 0, cd: key[n+2]&flagCD != 0})
	if old != nil && a.rcode != dns.RcodeSuccess && a.rcode != dns.RcodeNXDomain {
		a = old
	}
	f.cache.put(key, a)
	f.tell(fl, a, true)
}

// tell answers all who wait for the question. With the flight's end those who come later start a new one.
func (f *forwarder) tell(fl *flight, a *answer, end bool) {
	f.mu.Lock()
	waiting := fl.waiting
	if fl.waiting = nil; end {
		delete(f.flights, fl.key)
		fl.us.flights--
	}
	f.waiters -= len(waiting)
	for _, p := range waiting {
		if f.clients[p.client]--; f.clients[p.client] == 0 {
			delete(f.clients, p.client)
		}
	}
	f.mu.Unlock()
	if a.stale {
		f.stale.Add(uint64(len(waiting)))
	}
	now := time.Now()
	for _, p := range waiting {
		zone, reply := otherZone, p.reply(nil, a, now)
		if p.target != "" {
			zone = ownZone
		}
		p.count.sent(zone, len(reply), now.Sub(p.began))
		p.to.send(reply)
	}
}

// reply is the message that tells p's client about answer a.
func (p *pending) reply(out []byte, a *answer, now time.Time) []byte {
	out = p.q.start(out, p.head)
	if p.target == "" {
		p.count.reply(otherZone, a.rcode)
		p.log.note(&p.q, a)
		return forwarded(out, &p.q, a, p.limit, now)
	}
	p.count.reply(ownZone, dns.RcodeSuccess)
	p.log.note(&p.q, a)
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
	return newAnswer(m, now, keeping{})
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
