//go:build linux

package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// SetName names one of the sets and maps of a table.
type SetName string

// The sets. A value that is looked up again sits in the second word of its map's data, after an unused one: nft
// 1.0.6 aborts when it lists a rule whose look-up key comes from the first word of another look-up.
const (
	setScope   SetName = "scope"   // source address (intervals)             -> 0 . scope
	setNode    SetName = "node"    // 0                                      -> source of masqueraded connections
	setRange   SetName = "range"   // addresses of the service range (intervals)
	setSvc     SetName = "svc"     // scope . address . protocol . port      -> 0 . pool . endpoints . affinity
	setClass   SetName = "class"   // endpoints . affinity                   -> goto its chain
	setSlot    SetName = "slot"    // pool . number below endpoints          -> 0 . endpoint
	setEp      SetName = "ep"      // endpoint                               -> address . port
	setAff     SetName = "aff"     // pool . client address                  -> 0 . endpoint, filled by rules
	setAllow   SetName = "allow"   // pool . client address (ranges) of clients in spec.loadBalancerSourceRanges
	setMasq    SetName = "masq"    // scope . address . protocol . port of connections to masquerade
	setHairpin SetName = "hairpin" // address . address of endpoints on this node
	setVIP     SetName = "vip"     // ClusterIPs, refused at ports that are no frontend
	setLB      SetName = "lb"      // load balancer addresses, pinged, and dropped at ports that are no frontend
	setPass    SetName = "pass"    // ClusterIPs that are left alone
	setCount   SetName = "count"   // pool . verdict, with a counter of connections
)

// family is what differs between the twin tables for IPv4 and IPv6.
type family struct {
	id           nfnl.Family
	ipv6         bool
	addrType     nfnl.Type
	addrLen      uint32
	words        int // registers of an address
	saddr, daddr uint32
	ctSrc, ctDst nfnl.CtKey
	icmp         uint8 // protocol number
	echoRequest  uint8
}

var (
	ipv4 = family{id: nfnl.IPv4, addrType: nfnl.TypeAddr4, addrLen: 4, words: 1, saddr: 12, daddr: 16,
		ctSrc: nfnl.CtSrc4, ctDst: nfnl.CtDst4, icmp: unix.IPPROTO_ICMP, echoRequest: 8}
	ipv6 = family{id: nfnl.IPv6, ipv6: true, addrType: nfnl.TypeAddr6, addrLen: 16, words: 4, saddr: 8, daddr: 24,
		ctSrc: nfnl.CtSrc6, ctDst: nfnl.CtDst6, icmp: unix.IPPROTO_ICMPV6, echoRequest: 128}
)

// sets are the sets of the table, in an order in which they can be made.
func (r ruleset) sets() []nfnl.Set {
	const mark = nfnl.TypeMark
	f := r.family
	key := nfnl.Concat(mark, f.addrType, nfnl.TypeProto, nfnl.TypePort)
	pair := nfnl.Concat(mark, mark)
	sets := []nfnl.Set{
		{Name: string(setScope), Flags: nfnl.Map | nfnl.Interval, KeyType: f.addrType, KeyLen: f.addrLen, DataType: pair, DataLen: 8},
		{Name: string(setNode), Flags: nfnl.Map, KeyType: mark, KeyLen: 4, DataType: f.addrType, DataLen: f.addrLen},
		{Name: string(setRange), Flags: nfnl.Interval, KeyType: f.addrType, KeyLen: f.addrLen},
		{Name: string(setSvc), Flags: nfnl.Map, KeyType: key, KeyLen: f.addrLen + 12,
			DataType: nfnl.Concat(mark, mark, mark, mark), DataLen: 16},
		{Name: string(setClass), Flags: nfnl.Map, KeyType: pair, KeyLen: 8, DataType: nfnl.TypeVerdict},
		{Name: string(setSlot), Flags: nfnl.Map, KeyType: pair, KeyLen: 8, DataType: pair, DataLen: 8},
		{Name: string(setEp), Flags: nfnl.Map, KeyType: mark, KeyLen: 4,
			DataType: nfnl.Concat(f.addrType, nfnl.TypePort), DataLen: f.addrLen + 4},
		{Name: string(setAff), Flags: nfnl.Map | nfnl.Timeout | nfnl.Dynamic, KeyType: nfnl.Concat(mark, f.addrType),
			KeyLen: f.addrLen + 4, DataType: pair, DataLen: 8, Size: uint32(r.clients), DefaultTimeoutMS: 10800 * 1000},
		{Name: string(setAllow), Flags: nfnl.Interval | nfnl.Concatenated, KeyType: nfnl.Concat(mark, f.addrType),
			KeyLen: f.addrLen + 4, Fields: [4]uint32{4, f.addrLen}},
		{Name: string(setMasq), KeyType: key, KeyLen: f.addrLen + 12},
		{Name: string(setHairpin), KeyType: nfnl.Concat(f.addrType, f.addrType), KeyLen: 2 * f.addrLen},
		{Name: string(setVIP), KeyType: f.addrType, KeyLen: f.addrLen},
		{Name: string(setLB), KeyType: f.addrType, KeyLen: f.addrLen},
		{Name: string(setPass), KeyType: f.addrType, KeyLen: f.addrLen},
		{Name: string(setCount), KeyType: pair, KeyLen: 8},
	}
	for i := range sets {
		sets[i].Family, sets[i].Table = f.id, r.table
	}
	return sets
}

func (f *family) addr(b []byte, a netip.Addr) []byte {
	if f.ipv6 {
		v := a.As16()
		return append(b, v[:]...)
	}
	v := a.As4()
	return append(b, v[:]...)
}

func number(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }
func port(b []byte, p uint16) []byte   { return append(b, byte(p>>8), byte(p), 0, 0) }

// reader takes apart what addr, number and port put together.
type reader struct {
	f   *family
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) number() uint32   { return binary.NativeEndian.Uint32(r.take(4)) }
func (r *reader) port() uint16     { return binary.BigEndian.Uint16(r.take(4)) }
func (r *reader) protocol() uint8  { return r.take(4)[0] }
func (r *reader) addr() netip.Addr { a, _ := netip.AddrFromSlice(r.take(int(r.f.addrLen))); return a }

// bounds gives the first and the last address of a prefix.
func bounds(p netip.Prefix) (first, last netip.Addr) {
	first = p.Masked().Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < first.BitLen(); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	return first, last
}

// prefixOf is the prefix with these bounds; ok is false if there is none.
func prefixOf(first, last netip.Addr) (p netip.Prefix, ok bool) {
	for bits := 0; bits <= first.BitLen(); bits++ {
		p = netip.PrefixFrom(first, bits)
		if f, l := bounds(p); f == first && l == last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
