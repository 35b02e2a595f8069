package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

// rewrite is a Rewrite ready to be compared with questions, whose names are text in lower case here: rewriting is off
// the hot path.
type rewrite struct {
	kind     RewriteKind
	from, to string
	fromType uint16
	toType   uint16
}

func newRewrites(rs []Rewrite) (out []rewrite, err error) {
	for _, r := range rs {
		n := rewrite{kind: r.Kind, from: strings.ToLower(r.From), to: strings.ToLower(r.To)}
		switch r.Kind {
		case RewriteType:
			var ok, okTo bool
			n.fromType, ok = mdns.StringToType[strings.ToUpper(r.From)]
			n.toType, okTo = mdns.StringToType[strings.ToUpper(r.To)]
			if !ok || !okTo {
				return nil, fmt.Errorf("rewrite type %s %s: no such type of records", r.From, r.To)
			}
		case RewriteExact:
			n.from, n.to = mdns.Fqdn(n.from), mdns.Fqdn(n.to)
		}
		out = append(out, n)
	}
	return out, nil
}

// rewrite finds the question to be answered in the place of another; ok is false when that is the question itself.
func (c *settings) rewrite(n *dns.Name, qtype uint16) (name string, newType uint16, ok bool) {
	if len(c.rewrites) == 0 {
		return "", 0, false
	}
	name = n.String()
	for _, r := range c.rewrites {
		if to, t, ok := r.apply(name, qtype); ok {
			return to, t, true
		}
	}
	return "", 0, false
}

func (r *rewrite) apply(name string, qtype uint16) (string, uint16, bool) {
	switch r.kind {
	case RewriteType:
		return name, r.toType, qtype == r.fromType
	case RewriteExact:
		return r.to, qtype, name == r.from
	case RewritePrefix:
		rest, ok := strings.CutPrefix(name, r.from)
		return r.to + rest, qtype, ok
	case RewriteSuffix:
		rest, ok := strings.CutSuffix(name, r.from)
		return rest + r.to, qtype, ok
	}
	return strings.ReplaceAll(name, r.from, r.to), qtype, strings.Contains(name, r.from)
}

// instead answers another question in the place of b's, under the name and type of b.
func (r *responder) instead(out, b []byte, limit int, name string, qtype uint16) []byte {
	wire, ok := dns.ParseName(name)
	if !ok { // the new name is none
		r.count.reply(otherZone, dns.RcodeServFail)
		return r.q.finish(out, 0, dns.RcodeServFail, 0, 0, 0)
	}
	other := append(bytes.Clone(b[:headerLen]), wire...)
	other = binary.BigEndian.AppendUint16(other, qtype)
	other = binary.BigEndian.AppendUint16(other, classIN)
	other = append(other, b[r.q.end:]...)
	back := &renaming{client: r.from, question: bytes.Clone(b[headerLen:r.q.end]), limit: limit}
	inner := responder{s: r.s, from: back, count: r.count, turn: r.turn, rewritten: true}
	if limit == r.q.size { // of UDP
		limit = maxUDP
	}
	reply := inner.respond(nil, other, limit)
	if len(reply) == 0 {
		return out[:0]
	}
	return append(out[:0], back.rename(reply)...)
}

// renaming is a client whose replies are to another question than the one that was answered.
type renaming struct {
	client
	question []byte
	limit    int
	to       sender
}

func (n *renaming) later() sender {
	later := *n
	later.to = n.client.later()
	return &later
}

func (n *renaming) send(reply []byte) { n.to.send(n.rename(reply)) }

// rename puts the client's question into a reply, and its name in front of the records of the other name.
func (n *renaming) rename(reply []byte) []byte {
	m, q := new(mdns.Msg), new(mdns.Msg)
	head := append(make([]byte, headerLen), n.question...)
	head[5] = 1
	if m.Unpack(reply) != nil || q.Unpack(head) != nil || len(m.Question) != 1 || len(q.Question) != 1 {
		return reply
	}
	other := m.Question[0].Name
	m.Question = q.Question
	for _, section := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); strings.EqualFold(h.Name, other) {
				h.Name = q.Question[0].Name
			}
		}
	}
	m.Compress = true
	if m.Truncate(n.limit); m.Len() > n.limit {
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	}
	out, err := m.Pack()
	if err != nil {
		return reply
	}
	return out
}
