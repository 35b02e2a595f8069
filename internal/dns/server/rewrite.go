package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

// Rewrite answers one name, or type, in the place of another, or changes the reply. Names in replies that are the one
// that was asked in its place become the client's again.
type Rewrite struct {
	Field    RewriteField
	Match    Match  // of the question's name; all but RewriteType
	To       string // a name, or what the match becomes; a type; a response code
	From     string // of RewriteType and RewriteRcode: what is replaced
	TTL      [2]int // of RewriteTTL: the least and the most, in seconds
	Continue bool   // those behind it are tried too
	Answers  []AnswerRewrite
}

// RewriteField says what of a question, or of its reply, a Rewrite changes.
type RewriteField uint8

// The fields of CoreDNS's plugin rewrite that there are.
const (
	RewriteName RewriteField = iota
	RewriteType
	RewriteTTL
	RewriteRcode
)

// AnswerRewrite changes names in replies.
type AnswerRewrite struct {
	Value bool // the name that a record leads to; else that which it belongs to
	Match Match
	To    string
}

// Match compares a name with text, both in lower case and with their final dot. Text of MatchRegex is an expression,
// and {1} in what replaces it is what its first group matched, {0} the whole.
type Match struct {
	Kind MatchKind
	Text string
}

// MatchKind says which part of a name is compared.
type MatchKind uint8

// The kinds of comparison. But for MatchRegex and MatchExact, what matches is replaced and the rest of the name stays.
const (
	MatchExact MatchKind = iota
	MatchPrefix
	MatchSuffix
	MatchSubstring
	MatchRegex
)

// matcher is a Match ready for use. What it replaces names with is text.
type matcher struct {
	kind  MatchKind
	text  string
	regex *regexp.Regexp
}

func (m Match) compile() (out matcher, err error) {
	out = matcher{kind: m.Kind, text: strings.ToLower(m.Text)}
	switch m.Kind {
	case MatchExact, MatchSuffix:
		out.text = mdns.Fqdn(out.text)
	case MatchRegex:
		if out.regex, err = regexp.Compile(m.Text); err != nil {
			return out, fmt.Errorf("rewrite: %w", err)
		}
	}
	return out, nil
}

// replace is what becomes of a name; ok is false when it does not match.
func (m *matcher) replace(name, to string) (out string, ok bool) {
	switch m.kind {
	case MatchExact:
		return to, name == m.text
	case MatchPrefix:
		rest, ok := strings.CutPrefix(name, m.text)
		return to + rest, ok
	case MatchSuffix:
		rest, ok := strings.CutSuffix(name, m.text)
		return rest + to, ok
	case MatchSubstring:
		return strings.ReplaceAll(name, m.text, to), strings.Contains(name, m.text)
	}
	groups := m.regex.FindStringSubmatch(name)
	for i, g := range groups {
		to = strings.ReplaceAll(to, "{"+strconv.Itoa(i)+"}", g)
	}
	return to, groups != nil
}

// rewrite is a Rewrite ready for use: rewriting is off the hot path, and compares text.
type rewrite struct {
	Rewrite
	match    matcher
	to       string
	from, by uint16 // types, or response codes
	answers  []answerRewrite
}

type answerRewrite struct {
	matcher
	to    string
	value bool
}

func newRewrites(rs []Rewrite) (out []rewrite, err error) {
	for _, r := range rs {
		n := rewrite{Rewrite: r, to: strings.ToLower(r.To)}
		if n.match, err = r.Match.compile(); err != nil {
			return nil, err
		}
		var ok, okTo bool
		switch r.Field {
		case RewriteName:
			if r.Match.Kind != MatchPrefix && r.Match.Kind != MatchSubstring {
				n.to = mdns.Fqdn(n.to)
			}
		case RewriteType:
			n.from, ok = mdns.StringToType[strings.ToUpper(r.From)]
			n.by, okTo = mdns.StringToType[strings.ToUpper(r.To)]
			if !ok || !okTo {
				return nil, fmt.Errorf("rewrite type %s %s: no such type of records", r.From, r.To)
			}
		case RewriteRcode:
			from, ok := mdns.StringToRcode[strings.ToUpper(r.From)]
			to, okTo := mdns.StringToRcode[strings.ToUpper(r.To)]
			if !ok || !okTo || from > 15 || to > 15 {
				return nil, fmt.Errorf("rewrite rcode %s %s: no such response code", r.From, r.To)
			}
			n.from, n.by = uint16(from), uint16(to)
		}
		for _, a := range r.Answers {
			m, err := a.Match.compile()
			if err != nil {
				return nil, err
			}
			n.answers = append(n.answers, answerRewrite{m, strings.ToLower(a.To), a.Value})
		}
		out = append(out, n)
	}
	return out, nil
}

// instead is the question to be answered in the place of another, and what becomes of the reply.
type instead struct {
	name  string
	qtype uint16
	rules []*rewrite // those that matched
}

// rewrite finds what is answered in the place of a question; ok is false when that is the question itself, and its
// reply stays as it is.
func (c *settings) rewrite(n *dns.Name, qtype uint16) (in instead, ok bool) {
	if len(c.rewrites) == 0 {
		return in, false
	}
	in = instead{name: n.String(), qtype: qtype}
	for i := range c.rewrites {
		r := &c.rewrites[i]
		if !r.apply(&in) {
			continue
		}
		if in.rules = append(in.rules, r); !r.Continue {
			break
		}
	}
	return in, len(in.rules) > 0
}

func (r *rewrite) apply(in *instead) bool {
	if r.Field == RewriteType {
		if in.qtype != r.from {
			return false
		}
		in.qtype = r.by
		return true
	}
	to, ok := r.match.replace(in.name, r.to)
	if ok && r.Field == RewriteName {
		in.name = to
	}
	return ok
}

// instead answers another question in the place of b's, under the name and type of b.
func (r *responder) instead(out, b []byte, limit int, in instead) []byte {
	wire, ok := dns.ParseName(in.name)
	if !ok { // the new name is none
		r.count.reply(otherZone, dns.RcodeServFail)
		return r.q.finish(out, 0, dns.RcodeServFail, 0, 0, 0)
	}
	other := append(bytes.Clone(b[:headerLen]), wire...)
	other = binary.BigEndian.AppendUint16(other, in.qtype)
	other = binary.BigEndian.AppendUint16(other, classIN)
	other = append(other, b[r.q.end:]...)
	back := &renaming{client: r.from, question: bytes.Clone(b[headerLen:r.q.end]), limit: limit, rules: in.rules}
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
	rules    []*rewrite
	to       sender
}

func (n *renaming) later() sender {
	later := *n
	later.to = n.client.later()
	return &later
}

func (n *renaming) send(reply []byte) { n.to.send(n.rename(reply)) }

// rename puts the client's question into a reply, and its name in front of the records of the other name, and does
// what the rules say of replies.
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
			for _, rule := range n.rules {
				rule.change(rr)
			}
		}
	}
	for _, rule := range n.rules {
		if rule.Field == RewriteRcode && m.Rcode == int(rule.from) {
			m.Rcode = int(rule.by)
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

// change does to one record of a reply what the rule says.
func (r *rewrite) change(rr mdns.RR) {
	h := rr.Header()
	if r.Field == RewriteTTL && h.Rrtype != mdns.TypeOPT {
		h.Ttl = min(max(h.Ttl, uint32(r.TTL[0])), uint32(r.TTL[1]))
	}
	for _, a := range r.answers {
		name := &h.Name
		if a.value {
			name = target(rr)
		}
		if name == nil || h.Rrtype == mdns.TypeOPT {
			continue
		}
		if to, ok := a.replace(strings.ToLower(*name), a.to); ok {
			*name = mdns.Fqdn(to)
		}
	}
}

// target is the name that a record leads to, nil when it leads to none.
func target(rr mdns.RR) *string {
	switch rr := rr.(type) {
	case *mdns.CNAME:
		return &rr.Target
	case *mdns.SRV:
		return &rr.Target
	case *mdns.PTR:
		return &rr.Ptr
	case *mdns.MX:
		return &rr.Mx
	case *mdns.NS:
		return &rr.Ns
	}
	return nil
}
