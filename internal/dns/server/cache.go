package server

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

const (
	cacheSize = 10_000 // answers
	cacheMax  = 30 * time.Second
	cacheFail = time.Second // RFC 9520, 3.2 asks for one at least
)

// answer is what an upstream said, ready to be sent: the records behind the question, and where their TTLs are.
// It is immutable.
type answer struct {
	rcode                     int
	authentic                 bool // the upstream validated it
	answers, authority, extra uint16
	body                      []byte
	ttls                      []int // offsets in body
	got                       time.Time
	keep                      time.Duration // how long it may be used again
}

// failure is the answer when no upstream gives one.
func failure(now time.Time) *answer {
	return &answer{rcode: dns.RcodeServFail, got: now, keep: cacheFail}
}

// newAnswer turns an upstream's message into an answer. The OPT record is left out: it is between us and the upstream.
// The records are written anew, so that nothing which we did not understand reaches a client.
func newAnswer(m *mdns.Msg, now time.Time) (*answer, error) {
	kept := m.Extra[:0]
	for _, rr := range m.Extra {
		if t := rr.Header().Rrtype; t != mdns.TypeOPT && t != mdns.TypeTSIG {
			kept = append(kept, rr)
		}
	}
	m.Extra = kept
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("write the upstream's answer: %w", err)
	}
	var n dns.Name
	length, ok := n.Parse(wire[headerLen:])
	if !ok || m.Rcode > 15 {
		return nil, fmt.Errorf("the upstream's answer has response code %d", m.Rcode)
	}
	a := &answer{
		rcode: m.Rcode, authentic: m.AuthenticatedData, got: now, keep: lifetime(m),
		answers: uint16(len(m.Answer)), authority: uint16(len(m.Ns)), extra: uint16(len(m.Extra)),
		body: wire[headerLen+length+4:],
	}
	for at, next := 0, 0; at < len(a.body); at = next {
		if next = dns.NextRecord(a.body, at); next < 0 {
			return nil, fmt.Errorf("the upstream's answer is cut at byte %d", at)
		}
		a.ttls = append(a.ttls, dns.TTLOffset(a.body, at))
	}
	return a, nil
}

// lifetime is how long a message may be used again: the lowest TTL of what answers, and for a negative answer what
// its SOA record says (RFC 2308, 5). One without either is not kept.
func lifetime(m *mdns.Msg) time.Duration {
	seconds := uint32(math.MaxUint32)
	for _, rr := range m.Answer {
		seconds = min(seconds, rr.Header().Ttl)
	}
	if m.Rcode == mdns.RcodeNameError || len(m.Answer) == 0 {
		negative := uint32(0)
		for _, rr := range m.Ns {
			if soa, ok := rr.(*mdns.SOA); ok {
				negative = min(soa.Hdr.Ttl, soa.Minttl)
			}
		}
		seconds = min(seconds, negative)
	}
	switch {
	case m.Rcode != mdns.RcodeSuccess && m.Rcode != mdns.RcodeNameError:
		return cacheFail
	case time.Duration(seconds) > cacheMax/time.Second:
		return cacheMax
	}
	return time.Duration(seconds) * time.Second
}

// append appends the records with the TTLs that are left.
func (a *answer) append(msg []byte, now time.Time) []byte {
	start := len(msg)
	msg = append(msg, a.body...)
	age := uint32(max(0, now.Sub(a.got)) / time.Second)
	for _, at := range a.ttls {
		ttl := msg[start+at:]
		binary.BigEndian.PutUint32(ttl, binary.BigEndian.Uint32(ttl)-min(age, binary.BigEndian.Uint32(ttl)))
	}
	return msg
}

// cache keeps answers of upstreams for as long as they may be used again. It is safe for concurrent use.
type cache struct {
	mu sync.Mutex
	by map[string]*answer
}

func (c *cache) get(key []byte, now time.Time) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.by[string(key)]
	if a != nil && now.Sub(a.got) >= a.keep {
		delete(c.by, string(key))
		return nil
	}
	return a
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.by)
}

// put keeps an answer. When it is full some others go: map order is random, and what is asked for often comes back.
func (c *cache) put(key string, a *answer) {
	if a.keep <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]*answer{}
	}
	for k := range c.by {
		if len(c.by) < cacheSize {
			break
		}
		delete(c.by, k)
	}
	c.by[key] = a
}
