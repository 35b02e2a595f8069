package server

import (
	"encoding/binary"

	"minato/internal/dns"
)

const (
	headerLen = 12
	optLen    = 11   // an OPT record without options
	minUDP    = 512  // what a client takes that says nothing (RFC 1035, 4.2.1)
	maxUDP    = 1232 // what travels in one frame on any link (DNS Flag Day 2020)
	maxTCP    = 65535

	typeOPT  = 41
	typeIXFR = 251
	typeAXFR = 252
	classIN  = 1

	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4

	rcodeBadVersion = 16 // its upper bits are in the OPT record (RFC 6891, 6.1.3)
)

// query is what we need of a received message. It is reused, so that parsing allocates nothing.
type query struct {
	name   dns.Name
	qtype  uint16
	class  uint16
	flags  uint16
	end    int // offset behind the question; 0 when the question was not readable
	length int // of the message
	rcode  int // not 0: why the message is refused before it is looked at

	edns bool
	do   bool
	size int // of UDP replies that the client takes
}

// parse reads a message from the network. It returns false for what gets no answer at all: rubbish, and answers,
// because answering those would let two servers talk to each other for ever.
func (q *query) parse(b []byte) bool {
	if len(b) < headerLen {
		return false
	}
	*q = query{name: q.name, flags: binary.BigEndian.Uint16(b[2:]), length: len(b), size: minUDP}
	if q.flags&flagQR != 0 {
		return false
	}
	if q.flags>>11&15 != 0 {
		q.rcode = dns.RcodeNotImp
		return true
	}
	q.rcode = dns.RcodeFormat
	if binary.BigEndian.Uint16(b[4:]) != 1 {
		return true
	}
	n, ok := q.name.Parse(b[headerLen:])
	at := headerLen + n
	if !ok || at+4 > len(b) {
		return true
	}
	q.qtype, q.class = binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
	q.end = at + 4
	records := 0
	for i := 6; i < headerLen; i += 2 {
		records += int(binary.BigEndian.Uint16(b[i:]))
	}
	if q.options(b, q.end, records) {
		q.rcode = q.refusal()
	}
	return true
}

// options looks through the records of a query for the OPT record; false when they are malformed or it is there twice.
func (q *query) options(b []byte, at, records int) bool {
	for range records {
		next := dns.NextRecord(b, at)
		if next < 0 {
			return false
		}
		for b[at] != 0 && b[at] < 0xC0 { // to the end of the owner's name
			at += 1 + int(b[at])
		}
		root := b[at] == 0
		if !root {
			at++
		}
		at++
		if binary.BigEndian.Uint16(b[at:]) == typeOPT {
			if q.edns || !root {
				return false
			}
			q.edns = true
			q.size = min(max(int(binary.BigEndian.Uint16(b[at+2:])), minUDP), maxUDP)
			if b[at+5] != 0 {
				q.rcode = rcodeBadVersion
			}
			q.do = b[at+6]&0x80 != 0
		}
		at = next
	}
	return true
}

// refusal is why a well-formed query is not looked at, 0 when it is.
func (q *query) refusal() int {
	switch {
	case q.rcode == rcodeBadVersion:
		return q.rcode
	case q.class != classIN, q.qtype == typeAXFR, q.qtype == typeIXFR:
		return dns.RcodeRefused
	}
	return 0
}

// start begins a reply in out: the header without counts, and the question as it was spelled.
func (q *query) start(out, b []byte) []byte {
	out = append(out[:0], b[:headerLen]...)
	clear(out[4:headerLen])
	if q.end > 0 {
		binary.BigEndian.PutUint16(out[4:], 1)
		out = append(out, b[headerLen:q.end]...)
	}
	return out
}

// finish writes flags and counts and appends the OPT record, which only a client that sent one gets.
func (q *query) finish(out []byte, flags uint16, rcode int, answers, authority, extra uint16) []byte {
	if q.edns {
		out = append(out, 0, 0, typeOPT, maxUDP>>8, maxUDP&255, byte(rcode>>4), 0, do(q.do), 0, 0, 0)
		extra++
	}
	flags |= flagQR | q.flags&(flagRD|flagCD) | q.flags&(15<<11) | uint16(rcode&15)
	binary.BigEndian.PutUint16(out[2:], flags)
	binary.BigEndian.PutUint16(out[6:], answers)
	binary.BigEndian.PutUint16(out[8:], authority)
	binary.BigEndian.PutUint16(out[10:], extra)
	return out
}

func do(on bool) byte {
	if on {
		return 0x80
	}
	return 0
}

// room is how many bytes a reply may have in front of the OPT record.
func (q *query) room(limit int) int {
	if q.edns {
		return limit - optLen
	}
	return limit
}
