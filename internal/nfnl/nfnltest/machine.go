//go:build linux

package nfnltest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// Packet is the first packet of a connection.
type Packet struct {
	Src, Dst netip.AddrPort
	Protocol uint8
	ICMPType uint8 // its first byte, of ICMP and ICMPv6
	// Original is the destination before translation and marks the connection as translated; for postrouting.
	Original netip.AddrPort
	// Random answers the rules' random numbers below n; nil: always 0.
	Random func(n uint32) uint32
	// Learn lets the rules change sets, as they do in the kernel.
	Learn bool
}

// Result is what the rules did to a packet.
type Result struct {
	Action   string         // "accept", "drop", "reset", "unreachable", "dnat", "snat"
	To       netip.AddrPort // of dnat; the address of snat
	Chain    string         // where the rules ended
	LookedUp int            // look-ups made
}

// machine runs rules as nf_tables does: registers, and rules that end where something does not match.
type machine struct {
	k    *Kernel
	f    nfnl.Family
	t    *table
	p    Packet
	reg  [64]byte
	set  [16]bool // registers that this rule has loaded
	out  Result
	goTo string
}

// Run sends a packet through a base chain.
func (k *Kernel) Run(f nfnl.Family, name, chainName string, p Packet) Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.undo = nil
	m := &machine{k: k, f: f, t: k.tables[f][name], p: p}
	if m.t == nil || m.t.chains[chainName] == nil {
		return Result{Action: "accept"}
	}
	for next := chainName; next != ""; {
		m.out.Chain = next
		next = m.chain(m.t.chains[next])
	}
	if m.out.Action == "" {
		m.out.Action = "accept"
	}
	return m.out
}

// chain runs the rules of a chain and returns the chain to go on with.
func (m *machine) chain(c *chain) (next string) {
	for _, r := range c.rules {
		m.set, m.goTo = [16]bool{}, ""
		for _, e := range r.Exprs {
			if !m.step(e) {
				break
			}
		}
		if m.out.Action != "" {
			return ""
		}
		if m.goTo != "" {
			return m.goTo
		}
	}
	return ""
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// load writes a register; the rest of its last word becomes zero, as in the kernel.
func (m *machine) load(reg []byte, v []byte) {
	i := int(u32(reg)) - unix.NFT_REG32_00
	padded := append(bytes.Clone(v), make([]byte, -len(v)&3)...)
	if i < 0 || 4*i+len(padded) > len(m.reg) {
		panic(fmt.Sprintf("nfnltest: %d bytes do not fit from register %d on", len(v), i))
	}
	copy(m.reg[4*i:], padded)
	for w := i; w < i+len(padded)/4; w++ {
		m.set[w] = true
	}
}

// value reads n bytes from a register, which this rule must have loaded.
func (m *machine) value(reg []byte, n int) []byte {
	i := int(u32(reg)) - unix.NFT_REG32_00
	for w := i; w < i+(n+3)/4; w++ {
		if w < 0 || w >= len(m.set) || !m.set[w] {
			panic(fmt.Sprintf("nfnltest: register %d is read before it is loaded", w))
		}
	}
	return m.reg[4*i : 4*i+n]
}

func (m *machine) step(e nfnl.Expr) bool {
	a := func(typ uint16) []byte { return nfnl.Attr(e.Data, typ) }
	switch e.Name {
	case "payload":
		m.load(a(unix.NFTA_PAYLOAD_DREG), m.payload(u32(a(2)), u32(a(3)), u32(a(4))))
	case "meta":
		m.load(a(unix.NFTA_META_DREG), []byte{m.p.Protocol})
	case "ct":
		m.load(a(unix.NFTA_CT_DREG), m.ct(nfnl.CtKey(u32(a(unix.NFTA_CT_KEY)))))
	case "cmp":
		want := nfnl.Attr(a(unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
		equal := bytes.Equal(m.value(a(unix.NFTA_CMP_SREG), len(want)), want)
		return equal == (nfnl.CmpOp(u32(a(unix.NFTA_CMP_OP))) == nfnl.Equal)
	case "bitwise":
		m.bitwise(a)
	case "immediate":
		return m.immediate(a)
	case "lookup":
		return m.lookup(a)
	case "numgen":
		m.load(a(unix.NFTA_NG_DREG), nfnl.Number(m.random(u32(a(unix.NFTA_NG_MODULUS)))))
	case "dynset":
		return m.dynset(a)
	case "nat":
		m.nat(a)
	case "reject":
		m.out.Action = map[uint32]string{0: "unreachable", 1: "reset"}[u32(a(unix.NFTA_REJECT_TYPE))]
	case "counter":
	default:
		panic("nfnltest: no such instruction here: " + e.Name)
	}
	return m.out.Action == ""
}

func (m *machine) random(n uint32) uint32 {
	if m.p.Random == nil {
		return 0
	}
	return m.p.Random(n) % n
}

func addrBytes(a netip.Addr) []byte { return a.AsSlice() }

func (m *machine) payload(base, offset, length uint32) []byte {
	src, dst, at := addrBytes(m.p.Src.Addr()), addrBytes(m.p.Dst.Addr()), uint32(12)
	if m.f == nfnl.IPv6 {
		at = 8
	}
	switch {
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == at && length == uint32(len(src)):
		return src
	case base == unix.NFT_PAYLOAD_NETWORK_HEADER && offset == at+uint32(len(src)) && length == uint32(len(dst)):
		return dst
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 0 && length == 1:
		return []byte{m.p.ICMPType}
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == 2 && length == 2:
		return binary.BigEndian.AppendUint16(nil, m.p.Dst.Port())
	}
	panic(fmt.Sprintf("nfnltest: payload %d+%d of %d bytes", base, offset, length))
}

func (m *machine) ct(key nfnl.CtKey) []byte {
	switch key {
	case nfnl.CtStatus:
		if m.p.Original.IsValid() {
			return nfnl.Number(nfnl.CtStatusDNAT)
		}
		return nfnl.Number(0)
	case nfnl.CtState:
		return nfnl.Number(0) // of a packet that is in order
	case nfnl.CtProtocol:
		return []byte{m.p.Protocol}
	case nfnl.CtSrc4, nfnl.CtSrc6:
		return addrBytes(m.p.Src.Addr())
	case nfnl.CtDst4, nfnl.CtDst6:
		return addrBytes(m.p.Original.Addr())
	case nfnl.CtProtoDst:
		return binary.BigEndian.AppendUint16(nil, m.p.Original.Port())
	}
	panic(fmt.Sprintf("nfnltest: ct key %d", key))
}

func (m *machine) bitwise(a func(uint16) []byte) {
	mask := nfnl.Attr(a(unix.NFTA_BITWISE_MASK), unix.NFTA_DATA_VALUE)
	xor := nfnl.Attr(a(unix.NFTA_BITWISE_XOR), unix.NFTA_DATA_VALUE)
	v := bytes.Clone(m.value(a(unix.NFTA_BITWISE_SREG), len(mask)))
	for i := range v {
		v[i] = v[i]&mask[i] ^ xor[i]
	}
	m.load(a(unix.NFTA_BITWISE_DREG), v)
}

func (m *machine) immediate(a func(uint16) []byte) bool {
	data, v := nfnl.DecodeData(a(unix.NFTA_IMMEDIATE_DATA))
	if v != nil {
		m.verdict(*v)
		return false
	}
	m.load(a(unix.NFTA_IMMEDIATE_DREG), data)
	return true
}

func (m *machine) verdict(v nfnl.Verdict) {
	switch v.Code {
	case nfnl.Drop:
		m.out.Action = "drop"
	case nfnl.Accept, nfnl.Return: // no chain is jumped to, so a return is the end
		m.out.Action = "accept"
	case nfnl.Goto:
		m.goTo = v.Chain
	default:
		panic(fmt.Sprintf("nfnltest: verdict %d", v.Code))
	}
}

func (m *machine) lookup(a func(uint16) []byte) bool {
	m.out.LookedUp++
	s := m.t.sets[str(a(unix.NFTA_LOOKUP_SET))]
	e, ok := s.find(m.value(a(unix.NFTA_LOOKUP_SREG), int(s.KeyLen)))
	if !ok {
		return false
	}
	if e.Counted && m.p.Learn {
		e.Packets++
		s.elements[elementKey(e)] = element{e}
	}
	dst := a(unix.NFTA_LOOKUP_DREG)
	switch {
	case dst == nil:
	case e.Verdict != nil:
		m.verdict(*e.Verdict)
		return false
	default:
		m.load(dst, e.Data)
	}
	return true
}

// find looks a key up. Of intervals the one with the highest first key at or below it holds, unless it has ended.
func (s *set) find(key []byte) (best nfnl.Element, ok bool) {
	if s.Flags&nfnl.Concatenated != 0 {
		return s.findRanges(key)
	}
	if s.Flags&nfnl.Interval == 0 {
		e, ok := s.elements[elementKey(nfnl.Element{Key: key})]
		if !ok {
			return s.catchAll()
		}
		return e.Element, ok
	}
	for _, e := range s.elements {
		if e.CatchAll || bytes.Compare(e.Key, key) > 0 {
			continue
		}
		if c := bytes.Compare(e.Key, best.Key); !ok || c > 0 || c == 0 && best.End {
			best, ok = e.Element, true
		}
	}
	if ok && !best.End {
		return best, true
	}
	return s.catchAll()
}

func (s *set) catchAll() (nfnl.Element, bool) {
	e, ok := s.elements[elementKey(nfnl.Element{CatchAll: true})]
	return e.Element, ok
}

// findRanges looks a key up whose every field may lie in a range.
func (s *set) findRanges(key []byte) (nfnl.Element, bool) {
	for _, e := range s.elements {
		at, in := uint32(0), true
		for _, n := range s.Fields {
			f := key[at : at+n]
			in = in && bytes.Compare(e.Key[at:at+n], f) <= 0 && bytes.Compare(f, e.KeyEnd[at:at+n]) <= 0
			at += n
		}
		if in {
			return e.Element, true
		}
	}
	return nfnl.Element{}, false
}

// dynset reports false where the set has no room: the rule ends.
func (m *machine) dynset(a func(uint16) []byte) bool {
	s := m.t.sets[str(a(unix.NFTA_DYNSET_SET_NAME))]
	e := clone(nfnl.Element{
		Key:  m.value(a(unix.NFTA_DYNSET_SREG_KEY), int(s.KeyLen)),
		Data: m.value(a(unix.NFTA_DYNSET_SREG_DATA), int(s.DataLen)),
	})
	key := elementKey(e)
	_, there := s.elements[key]
	switch {
	case !m.p.Learn:
	case nfnl.DynsetOp(u32(a(unix.NFTA_DYNSET_OP))) == nfnl.DynsetDelete:
		delete(s.elements, key)
	case there:
	case s.Size > 0 && len(s.elements) >= int(s.Size):
		return false
	default:
		s.elements[key] = element{e}
	}
	return true
}

func (m *machine) nat(a func(uint16) []byte) {
	length := 4
	if m.f == nfnl.IPv6 {
		length = 16
	}
	addr, _ := netip.AddrFromSlice(m.value(a(unix.NFTA_NAT_REG_ADDR_MIN), length))
	m.out.Action, m.out.To = "snat", netip.AddrPortFrom(addr, 0)
	if u32(a(unix.NFTA_NAT_TYPE)) == unix.NFT_NAT_DNAT {
		m.out.Action = "dnat"
		port := m.p.Dst.Port()
		if reg := a(unix.NFTA_NAT_REG_PROTO_MIN); reg != nil {
			port = binary.BigEndian.Uint16(m.value(reg, 2))
		}
		m.out.To = netip.AddrPortFrom(addr, port)
	}
}
