package server

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
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
	last                      time.Time     // until then it may be used when no upstream answers
	stale                     bool          // its time is over
}

// failure is the answer when no upstream gives one.
func failure(now time.Time) *answer {
	return &answer{rcode: dns.RcodeServFail, got: now, keep: cacheFail}
}

// newAnswer turns an upstream's message into an answer. The OPT record is left out: it is between us and the upstream.
// The records are written anew, so that nothing which we did not understand reaches a client.
func newAnswer(m *mdns.Msg, now time.Time, most keeping) (*answer, error) {
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
		rcode: m.Rcode, authentic: m.AuthenticatedData, got: now, keep: most.lifetime(m),
		answers: uint16(len(m.Answer)), authority: uint16(len(m.Ns)), extra: uint16(len(m.Extra)),
		body: wire[headerLen+length+4:],
	}
	if a.rcode == dns.RcodeSuccess || a.rcode == dns.RcodeNXDomain {
		a.last = now.Add(a.keep + staleFor)
	}
	for at, next := 0, 0; at < len(a.body); at = next {
		if next = dns.NextRecord(a.body, at); next < 0 {
			return nil, fmt.Errorf("the upstream's answer is cut at byte %d", at)
		}
		a.ttls = append(a.ttls, dns.TTLOffset(a.body, at))
	}
	return a, nil
}

// keeping is for how long answers are kept at most.
type keeping struct{ found, denied time.Duration }

// lifetime is how long a message may be used again: the lowest TTL of what answers, and for a negative answer what
// its SOA record says (RFC 2308, 5). One without either is not kept.
func (k keeping) lifetime(m *mdns.Msg) time.Duration {
	if m.Rcode != mdns.RcodeSuccess && m.Rcode != mdns.RcodeNameError {
		return cacheFail
	}
	seconds, most := uint32(math.MaxInt32), k.found
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
		seconds, most = min(seconds, negative), k.denied
	}
	return min(time.Duration(seconds)*time.Second, most)
}

// append appends the records with the TTLs that are left.
func (a *answer) append(msg []byte, now time.Time) []byte {
	start := len(msg)
	msg = append(msg, a.body...)
	age := uint32(max(0, now.Sub(a.got)) / time.Second)
	for _, at := range a.ttls {
		ttl := msg[start+at:]
		left := binary.BigEndian.Uint32(ttl)
		if left -= min(age, left); a.stale {
			left = staleTTL
		}
		binary.BigEndian.PutUint32(ttl, left)
	}
	return msg
}
