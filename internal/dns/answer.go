package dns

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// Answer says what View.Append put behind the question, and what is left to do.
type Answer struct {
	Foreign   bool   // not ours: nothing was appended, the question is for an upstream
	Chase     string // the answer ends in a CNAME to this wire name, which an upstream must resolve; "" for none
	Rcode     uint8
	Truncated bool

	Answers, Authority, Extra uint16 // records in each section
}

const maxChain = 10 // CNAMEs followed inside the zone, as with CoreDNS

// Append appends the answer to the question n of the given type to msg, which ends with the question at offset 12.
// The message stays within limit bytes. turn picks which address comes first. It does not allocate.
func (v View) Append(msg []byte, n *Name, qtype uint16, limit int, turn uint32) ([]byte, Answer) {
	front, own := v.tree.zone.own(n)
	e := v.tree.find(n.Wire())
	if !own {
		if e == nil || qtype != TypePTR {
			return msg, Answer{Foreign: true}
		}
		return appendSet(msg, e.set(TypePTR), limit, turn)
	}
	apex := headerLen + int(n.starts[front])
	alias := false
	if e == nil {
		if pod, ok := v.pod(n, front); ok {
			return v.appendPod(msg, pod, qtype, apex)
		}
		if e = v.alias(n, front); e == nil && !v.implied(n, front) {
			if v.podUnknown(n, front) {
				return msg, Answer{Rcode: RcodeServFail}
			}
			return v.appendMissing(msg, apex)
		}
		alias = e != nil
	}
	switch {
	case qtype == TypeANY:
		return AppendANY(msg), Answer{Answers: 1}
	case qtype == TypeSOA && front == 0:
		return v.appendSOA(msg, apex), Answer{Answers: 1}
	case e != nil && e.target != "" && (qtype == TypeA || qtype == TypeAAAA):
		return v.appendChain(msg, e, qtype, limit, turn, apex)
	}
	if e == nil {
		return v.appendEmpty(msg, apex)
	}
	s := e.set(qtype)
	if s == nil {
		return v.appendEmpty(msg, apex)
	}
	out, a := appendSet(msg, s, limit, turn)
	if alias {
		relocate(out[len(msg):], uint16(len(e.name)-n.n))
	}
	return out, a
}

// relocate makes the additional records of a set right for a question whose name is shorter by some bytes: their
// owners point to targets behind it.
func relocate(records []byte, shorter uint16) {
	for at := 0; at < len(records); at = NextRecord(records, at) {
		if p := binary.BigEndian.Uint16(records[at:]); p != questionPtr {
			binary.BigEndian.PutUint16(records[at:], p-shorter)
		}
	}
}

// AppendANY appends the one small record with which questions of type ANY are answered (RFC 8482, 4.2).
func AppendANY(msg []byte) []byte {
	return append(appendHeader(msg, questionPtr, TypeHINFO, defaultTTL, 9), "\x07RFC8482\x00"...)
}

// implied reports names that exist without an entry: the apexes, and the upper part of a reverse zone.
func (v View) implied(n *Name, front int) bool {
	if front == 0 {
		return true
	}
	suffix := string(n.from(n.labels - 2))
	return suffix == inAddrArpa && n.labels < 4+2 && numeric(n) || suffix == ip6Arpa && n.labels < 32+2 && numeric(n)
}

// numeric reports whether every label of a reverse name could be one of an address.
func numeric(n *Name) bool {
	for i := range n.labels - 2 {
		l := n.label(i)
		if _, ok := octet(l); ok {
			continue
		}
		if _, ok := nibble(l[0]); !ok || len(l) != 1 {
			return false
		}
	}
	return true
}

// alias finds _port._protocol names written without their underscores, as CoreDNS does.
func (v View) alias(n *Name, front int) *entry {
	if front != 5 || n.labels-front != v.tree.zone.labels || string(n.label(4)) != "svc" {
		return nil
	}
	var b [maxName + 2]byte
	at := 0
	for i := range 2 {
		l := n.label(i)
		size := len(l)
		if l[0] != '_' {
			size++
		}
		b[at] = byte(size)
		b[at+1] = '_'
		at += 1 + size
		copy(b[at-len(l):at], l)
	}
	rest := n.from(2)
	if at+len(rest) > maxName {
		return nil
	}
	return v.tree.find(b[:at+copy(b[at:], rest)])
}

// pod reads a-b-c-d.NAMESPACE.pod: any address is answered in a namespace that exists, which is the deprecated but
// required part of the specification in CoreDNS's default mode ("pods insecure").
func (v View) pod(n *Name, front int) (netip.Addr, bool) {
	if front != 3 || n.labels-front != v.tree.zone.labels || string(n.label(2)) != "pod" || v.tree.find(n.from(1)) == nil {
		return netip.Addr{}, false
	}
	a, ok := undash(n.label(0))
	return a, ok && v.tree.zone.options.podName(n.label(1), a)
}

// podUnknown reports whether a name that was not found is a pod's, of whom nothing was read yet.
func (v View) podUnknown(n *Name, front int) bool {
	if v.tree.zone.options.podsRead() || front != 3 || string(n.label(2)) != "pod" || v.tree.find(n.from(1)) == nil {
		return false
	}
	_, ok := undash(n.label(0))
	return ok
}

// undash reads "10-244-1-5" or "2001-db8--1".
func undash(l []byte) (netip.Addr, bool) {
	var b [4]byte
	i, rest, ok := 0, l, true
	for ; i < 4 && ok; i++ {
		part, next, more := bytes.Cut(rest, []byte("-"))
		if b[i], ok = octet(part); ok && more != (i < 3) {
			ok = false
		}
		rest = next
	}
	if ok {
		return netip.AddrFrom4(b), true
	}
	for _, c := range l {
		if _, hex := nibble(c); !hex && c != '-' {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(string(bytes.ReplaceAll(l, []byte("-"), []byte(":"))))
	return a, err == nil
}

func (v View) appendPod(msg []byte, a netip.Addr, qtype uint16, apex int) ([]byte, Answer) {
	if a.Is4() && qtype == TypeA || a.Is6() && qtype == TypeAAAA {
		return appendAddr(msg, questionPtr, v.tree.zone.ttl, a), Answer{Answers: 1}
	}
	return v.appendEmpty(msg, apex)
}

// appendChain answers an ExternalName: the CNAME and what it leads to. A target in our own zone without an answer
// makes the whole one empty (coredns#6088).
func (v View) appendChain(msg []byte, e *entry, qtype uint16, limit int, turn uint32, apex int) ([]byte, Answer) {
	question := len(msg)
	owner := uint16(questionPtr)
	var a Answer
	var n Name
	for range maxChain {
		msg = append(appendHeader(msg, owner, TypeCNAME, v.tree.zone.ttl, len(e.target)), e.target...)
		a.Answers++
		target := len(msg) - len(e.target)
		if len(msg) > limit || target >= 1<<14 {
			return msg[:question], Answer{Truncated: true}
		}
		owner = 0xC000 | uint16(target)
		n.Parse(msg[target:])
		front, own := v.tree.zone.own(&n)
		if !own {
			a.Chase = e.target
			return msg, a
		}
		if pod, ok := v.pod(&n, front); ok && pod.Is4() == (qtype == TypeA) {
			a.Answers++
			return appendAddr(msg, owner, v.tree.zone.ttl, pod), a
		}
		if e = v.tree.find(n.Wire()); e == nil {
			break
		}
		if e.target != "" {
			continue
		}
		if s := e.set(qtype); s != nil {
			start := len(msg)
			out, end := appendSet(msg, s, limit, turn)
			for ; start < len(out); start += len(s.body) / int(s.answers) {
				binary.BigEndian.PutUint16(out[start:], owner)
			}
			end.Answers += a.Answers
			return out, end
		}
		break
	}
	return v.appendEmpty(msg[:question], apex)
}

// appendMissing says that the name does not exist, or, before everything was read, that we do not know.
func (v View) appendMissing(msg []byte, apex int) ([]byte, Answer) {
	if !v.tree.complete {
		return msg, Answer{Rcode: RcodeServFail}
	}
	return v.appendSOA(msg, apex), Answer{Rcode: RcodeNXDomain, Authority: 1}
}

// appendEmpty says that the name exists and has no record of the type.
func (v View) appendEmpty(msg []byte, apex int) ([]byte, Answer) {
	return v.appendSOA(msg, apex), Answer{Authority: 1}
}

// AppendEmpty is what Append says of a name of ours that has no record of the type asked for.
func (v View) AppendEmpty(msg []byte, n *Name) ([]byte, Answer) {
	front, _ := v.tree.zone.own(n)
	return v.appendEmpty(msg, headerLen+int(n.starts[front]))
}

// appendSOA appends the SOA record of the zone whose name stands at offset apex. The serial is the revision.
func (v View) appendSOA(msg []byte, apex int) []byte {
	owner := 0xC000 | uint16(apex)
	ttl := min(v.tree.zone.ttl, maxSOATTL)
	msg = appendHeader(msg, owner, TypeSOA, ttl, 9+13+20)
	msg = binary.BigEndian.AppendUint16(append(msg, "\x02ns\x03dns"...), owner)
	msg = binary.BigEndian.AppendUint16(append(msg, "\x0ahostmaster"...), owner)
	for _, n := range [...]uint32{uint32(v.tree.revision), 7200, 1800, 86400, ttl} {
		msg = binary.BigEndian.AppendUint32(msg, n)
	}
	return msg
}

// appendSet appends as many records of a set as fit. Addresses are rotated, so that clients which take the first one
// spread; those that are near rotate among themselves and stay in front.
func appendSet(msg []byte, s *rrset, limit int, turn uint32) ([]byte, Answer) {
	room := max(0, limit-len(msg))
	if s.qtype != TypeA && s.qtype != TypeAAAA {
		body, answers, extra := s.body, int(s.answers), int(s.extra)
		if len(body) > room {
			var n int
			body, n = Fit(body, answers+extra, room)
			answers = min(answers, n)
			extra = n - answers
		}
		a := Answer{Answers: uint16(answers), Extra: uint16(extra)}
		a.Truncated = a.Answers < s.answers || !s.whole
		return append(msg, body...), a
	}
	size := len(s.body) / int(s.answers)
	fit := min(int(s.answers), room/size)
	left := fit * size
	near := int(s.near)
	for _, part := range [2][]byte{s.body[:near*size], s.body[near*size:]} {
		if len(part) == 0 {
			continue
		}
		cut := int(turn) % (len(part) / size) * size
		for _, p := range [2][]byte{part[cut:], part[:cut]} {
			p = p[:min(left, len(p))]
			msg = append(msg, p...)
			left -= len(p)
		}
	}
	return msg, Answer{Answers: uint16(fit), Truncated: fit < int(s.answers) || !s.whole}
}

// Fit returns the longest run of whole records at the start of body within room bytes, and how many records of the n
// it holds.
func Fit(body []byte, n, room int) (fit []byte, records int) {
	at := 0
	for records < n {
		next := NextRecord(body, at)
		if next < 0 || next > room {
			break
		}
		at = next
		records++
	}
	return body[:at], records
}

// NextRecord is the offset behind the record at offset at, -1 when it is not whole.
func NextRecord(b []byte, at int) int {
	for at < len(b) && b[at] != 0 && b[at] < 0xC0 {
		at += 1 + int(b[at])
	}
	if at >= len(b) {
		return -1
	}
	if b[at] >= 0xC0 {
		at++
	}
	at++
	if at+10 > len(b) {
		return -1
	}
	at += 10 + int(binary.BigEndian.Uint16(b[at+8:]))
	if at > len(b) {
		return -1
	}
	return at
}

// TTLOffset is the offset of the TTL of the record at offset at, which NextRecord found whole.
func TTLOffset(b []byte, at int) int {
	for b[at] != 0 && b[at] < 0xC0 {
		at += 1 + int(b[at])
	}
	if b[at] >= 0xC0 {
		at++
	}
	return at + 1 + 4
}
