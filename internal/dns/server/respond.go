package server

import (
	"minato/internal/dns"
)

// client is where a message came from.
type client interface {
	// later promises one reply after respond has returned.
	later() sender
}

// sender delivers a reply after respond has returned.
type sender interface{ send(reply []byte) }

// responder answers messages one after the other. Each belongs to one goroutine.
type responder struct {
	s    *Server
	from client
	q    query
	turn uint32
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
		return q.finish(out, 0, q.rcode, 0, 0, 0)
	}
	r.turn++
	out, a := r.s.cfg.Table.View().Append(out, &q.name, q.qtype, q.room(limit), r.turn)
	if a.Foreign || a.Chase != "" {
		return q.finish(out[:q.end], 0, dns.RcodeRefused, 0, 0, 0)
	}
	flags := uint16(flagAA)
	if a.Truncated {
		flags |= flagTC
	}
	return q.finish(out, flags, int(a.Rcode), a.Answers, a.Authority, a.Extra)
}
