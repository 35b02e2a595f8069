package dns

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// Types and codes of DNS messages that this package speaks (RFC 1035, 3596, 2782, 8482).
const (
	TypeA     = 1
	TypeNS    = 2
	TypeCNAME = 5
	TypeSOA   = 6
	TypePTR   = 12
	TypeHINFO = 13
	TypeTXT   = 16
	TypeAAAA  = 28
	TypeSRV   = 33
	TypeANY   = 255

	RcodeSuccess  = 0
	RcodeFormat   = 1
	RcodeServFail = 2
	RcodeNXDomain = 3
	RcodeNotImp   = 4
	RcodeRefused  = 5
)

const (
	headerLen   = 12
	maxMessage  = 65535
	questionPtr = 0xC00C // the name at offset 12: the question's
	sizeA       = 16     // a whole A record whose owner is a pointer
	sizeAAAA    = 28
)

// rrset is the ready answer to one type of question at one name.
type rrset struct {
	qtype   uint16
	answers uint16 // number of records that answer
	extra   uint16 // number of additional records, behind them
	near    uint16 // A and AAAA: the first ones, which rotate among themselves
	whole   bool   // false: a message cannot hold more, and records were left out
	body    []byte
}

// entry is a name of the tree with everything that is answered there. It is immutable.
type entry struct {
	name     string // wire
	sets     []rrset
	target   string    // wire name of a CNAME's target, to be followed
	pointers []pointer // PTR names only: who gave which record
	refs     int       // namespaces only: the namespace object and the Services in it
}

func (e *entry) set(qtype uint16) *rrset {
	for i := range e.sets {
		if e.sets[i].qtype == qtype {
			return &e.sets[i]
		}
	}
	return nil
}

// render makes the answers of a name. The offset of the answer section follows from the length of the name.
func render(n named, ttl uint32) *entry {
	e := &entry{name: n.name, target: n.target}
	if n.target != "" {
		e.add(rrset{qtype: TypeCNAME, answers: 1, whole: true, body: appendName(nil, TypeCNAME, ttl, n.target)})
		return e
	}
	e.add(addresses(n.items, TypeA, ttl))
	e.add(addresses(n.items, TypeAAAA, ttl))
	e.add(services(n.name, n.items, ttl))
	return e
}

func (e *entry) add(r rrset) {
	if r.answers > 0 {
		e.sets = append(e.sets, r)
	}
}

// addresses are the A or AAAA records of a name, every address once.
func addresses(items []item, qtype uint16, ttl uint32) rrset {
	r := rrset{qtype: qtype, whole: true}
	seen := make(map[netip.Addr]bool, len(items))
	for _, i := range items {
		if i.addr.Is4() != (qtype == TypeA) || seen[i.addr] {
			continue
		}
		if len(r.body) > maxMessage-maxName-sizeAAAA {
			r.whole = false
			break
		}
		seen[i.addr] = true
		r.body = appendAddr(r.body, questionPtr, ttl, i.addr)
		r.answers++
		if i.near == items[0].near {
			r.near++
		}
	}
	return r
}

// services are the SRV records of a name and, as additional records, the addresses of their targets. Weights are
// CoreDNS's: 100 divided among all items, before those with the same target and port are taken together.
func services(name string, items []item, ttl uint32) rrset {
	r := rrset{qtype: TypeSRV, whole: true}
	weight := uint16(max(1, math.Floor(100/float64(100*len(items))*100)))
	at := map[string]int{} // offset in the message of each target
	type key struct {
		target string
		port   uint16
	}
	seen := map[key]bool{}
	for _, i := range items {
		if i.port == 0 || seen[key{i.target, i.port}] {
			continue
		}
		if len(r.body) > maxMessage-2*maxName-headerLen {
			r.whole = false
			break
		}
		seen[key{i.target, i.port}] = true
		r.body = appendHeader(r.body, questionPtr, TypeSRV, ttl, 6+len(i.target))
		r.body = binary.BigEndian.AppendUint16(r.body, 0)
		r.body = binary.BigEndian.AppendUint16(r.body, weight)
		r.body = binary.BigEndian.AppendUint16(r.body, i.port)
		if _, ok := at[i.target]; !ok {
			at[i.target] = headerLen + len(name) + 4 + len(r.body)
		}
		r.body = append(r.body, i.target...)
		r.answers++
	}
	glue := slices.DeleteFunc(slices.Clone(items), func(i item) bool { return i.port == 0 })
	slices.SortFunc(glue, func(a, b item) int { return cmp.Or(a.addr.Compare(b.addr), strings.Compare(a.target, b.target)) })
	glue = slices.CompactFunc(glue, func(a, b item) bool { return a.addr == b.addr && a.target == b.target })
	for _, i := range glue {
		// A pointer has 14 bits. What lies beyond goes without its address: it is far over any UDP reply.
		if off, ok := at[i.target]; ok && off < 1<<14 && len(r.body) < maxMessage-2*maxName-headerLen {
			r.body = appendAddr(r.body, 0xC000|uint16(off), ttl, i.addr)
			r.extra++
		}
	}
	return r
}

// pointersEntry makes the PTR records of one address. A ClusterIP has one name, an endpoint one for each Service.
func pointersEntry(name string, ps []pointer, ttl uint32) *entry {
	slices.SortFunc(ps, pointer.compare)
	e := &entry{name: name, pointers: ps}
	r := rrset{qtype: TypePTR, whole: true}
	for i, p := range ps {
		if i > 0 && (ps[0].cluster || p.target == ps[i-1].target) {
			continue
		}
		r.body = appendName(r.body, TypePTR, ttl, p.target)
		r.answers++
	}
	e.add(r)
	return e
}

func appendHeader(b []byte, owner, qtype uint16, ttl uint32, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, owner)
	b = binary.BigEndian.AppendUint16(b, qtype)
	b = binary.BigEndian.AppendUint16(b, 1) // class IN
	b = binary.BigEndian.AppendUint32(b, ttl)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

func appendAddr(b []byte, owner uint16, ttl uint32, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return append(appendHeader(b, owner, TypeA, ttl, 4), v[:]...)
	}
	v := a.As16()
	return append(appendHeader(b, owner, TypeAAAA, ttl, 16), v[:]...)
}

// appendName appends a record at the question's name whose contents are a name.
func appendName(b []byte, qtype uint16, ttl uint32, target string) []byte {
	return append(appendHeader(b, questionPtr, qtype, ttl, len(target)), target...)
}
