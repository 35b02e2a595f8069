//go:build linux

package nfnl

import "golang.org/x/sys/unix"

// Expr is one step of a rule: an instruction of the nf_tables machine with its attributes already encoded.
// A step that does not match, or a look-up that finds nothing, ends its rule, and the next rule is tried.
type Expr struct {
	Name string
	Data []byte
}

// Reg is a register of the nf_tables machine. A value longer than 4 bytes takes several in a row.
type Reg uint32

// R is the i-th of the 16 registers of 4 bytes.
func R(i int) Reg { return Reg(unix.NFT_REG32_00 + i) }

const verdictReg Reg = unix.NFT_REG_VERDICT

func expr(name string, fill func(a *attrs)) Expr {
	var a attrs
	if fill != nil {
		fill(&a)
	}
	return Expr{name, a}
}

// Base is where a payload offset counts from.
type Base uint32

// The headers of a packet.
const (
	NetworkHeader   Base = unix.NFT_PAYLOAD_NETWORK_HEADER
	TransportHeader Base = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Payload loads bytes of the packet.
func Payload(base Base, offset, length uint32, dst Reg) Expr {
	return expr("payload", func(a *attrs) {
		a.u32(unix.NFTA_PAYLOAD_DREG, uint32(dst))
		a.u32(unix.NFTA_PAYLOAD_BASE, uint32(base))
		a.u32(unix.NFTA_PAYLOAD_OFFSET, offset)
		a.u32(unix.NFTA_PAYLOAD_LEN, length)
	})
}

// MetaKey is a property of a packet that is not in its bytes.
type MetaKey uint32

// The properties in use. Interface names are 16 bytes, padded with zeros.
const (
	MetaIIFName    MetaKey = unix.NFT_META_IIFNAME
	MetaOIFName    MetaKey = unix.NFT_META_OIFNAME
	MetaL4Proto    MetaKey = unix.NFT_META_L4PROTO
	InterfaceBytes         = unix.IFNAMSIZ
)

// Meta loads a property.
func Meta(key MetaKey, dst Reg) Expr {
	return expr("meta", func(a *attrs) {
		a.u32(unix.NFTA_META_DREG, uint32(dst))
		a.u32(unix.NFTA_META_KEY, uint32(key))
	})
}

// InterfaceName is a whole interface name as Meta loads it, for Cmp.
func InterfaceName(name string) []byte {
	b := make([]byte, InterfaceBytes)
	copy(b, name)
	return b
}

// CmpOp compares a register with a constant, byte by byte.
type CmpOp uint32

// The comparisons.
const (
	Equal    CmpOp = unix.NFT_CMP_EQ
	NotEqual CmpOp = unix.NFT_CMP_NEQ
)

// Cmp goes on only if the comparison holds.
func Cmp(op CmpOp, src Reg, value []byte) Expr {
	return expr("cmp", func(a *attrs) {
		a.u32(unix.NFTA_CMP_SREG, uint32(src))
		a.u32(unix.NFTA_CMP_OP, uint32(op))
		d := a.open(unix.NFTA_CMP_DATA)
		a.raw(unix.NFTA_DATA_VALUE, value)
		a.close(d)
	})
}

// Bitwise computes dst = src & mask ^ xor. The three have one length.
func Bitwise(src, dst Reg, mask, xor []byte) Expr {
	return expr("bitwise", func(a *attrs) {
		a.u32(unix.NFTA_BITWISE_SREG, uint32(src))
		a.u32(unix.NFTA_BITWISE_DREG, uint32(dst))
		a.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		m := a.open(unix.NFTA_BITWISE_MASK)
		a.raw(unix.NFTA_DATA_VALUE, mask)
		a.close(m)
		x := a.open(unix.NFTA_BITWISE_XOR)
		a.raw(unix.NFTA_DATA_VALUE, xor)
		a.close(x)
	})
}

// Immediate loads a constant.
func Immediate(dst Reg, value []byte) Expr {
	return expr("immediate", func(a *attrs) {
		a.u32(unix.NFTA_IMMEDIATE_DREG, uint32(dst))
		d := a.open(unix.NFTA_IMMEDIATE_DATA)
		a.raw(unix.NFTA_DATA_VALUE, value)
		a.close(d)
	})
}

// Decide ends the rule with a verdict.
func Decide(v Verdict) Expr {
	return expr("immediate", func(a *attrs) {
		a.u32(unix.NFTA_IMMEDIATE_DREG, uint32(verdictReg))
		d := a.open(unix.NFTA_IMMEDIATE_DATA)
		a.verdict(v)
		a.close(d)
	})
}

func (a *attrs) verdict(v Verdict) {
	n := a.open(unix.NFTA_DATA_VERDICT)
	a.u32(unix.NFTA_VERDICT_CODE, uint32(v.Code))
	if v.Chain != "" {
		a.str(unix.NFTA_VERDICT_CHAIN, v.Chain)
	}
	a.close(n)
}

// Lookup goes on only if the set has the key that starts at register key.
func Lookup(set string, key Reg) Expr {
	return expr("lookup", func(a *attrs) {
		a.str(unix.NFTA_LOOKUP_SET, set)
		a.u32(unix.NFTA_LOOKUP_SREG, uint32(key))
	})
}

// LookupMap is Lookup, and loads the data found.
func LookupMap(set string, key, dst Reg) Expr {
	return expr("lookup", func(a *attrs) {
		a.str(unix.NFTA_LOOKUP_SET, set)
		a.u32(unix.NFTA_LOOKUP_SREG, uint32(key))
		a.u32(unix.NFTA_LOOKUP_DREG, uint32(dst))
	})
}

// LookupVerdict takes the verdict that the verdict map has for the key.
func LookupVerdict(set string, key Reg) Expr { return LookupMap(set, key, verdictReg) }

// Random loads a random number from 0 to n-1, in the machine's byte order.
func Random(n uint32, dst Reg) Expr {
	return expr("numgen", func(a *attrs) {
		a.u32(unix.NFTA_NG_DREG, uint32(dst))
		a.u32(unix.NFTA_NG_MODULUS, n)
		a.u32(unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM)
		a.u32(unix.NFTA_NG_OFFSET, 0)
	})
}

// DynsetOp is what a rule does to a set.
type DynsetOp uint32

// The operations. Delete needs Linux 5.4; on a map it needs a data register too, which it does not read.
const (
	DynsetAdd    DynsetOp = unix.NFT_DYNSET_OP_ADD
	DynsetUpdate DynsetOp = unix.NFT_DYNSET_OP_UPDATE
	DynsetDelete DynsetOp = 2
)

// Dynset changes an element of a map from the packet path. A timeout of 0 is the set's own.
func Dynset(set string, op DynsetOp, key, data Reg, timeoutMS uint64) Expr {
	return expr("dynset", func(a *attrs) {
		a.str(unix.NFTA_DYNSET_SET_NAME, set)
		a.u32(unix.NFTA_DYNSET_OP, uint32(op))
		a.u32(unix.NFTA_DYNSET_SREG_KEY, uint32(key))
		a.u32(unix.NFTA_DYNSET_SREG_DATA, uint32(data))
		if timeoutMS > 0 {
			a.u64(unix.NFTA_DYNSET_TIMEOUT, timeoutMS)
		}
	})
}

// CtKey is a property of a packet's connection.
type CtKey uint32

// The properties in use. CtProtoDst and the addresses need CtOriginal.
const (
	CtState        CtKey = unix.NFT_CT_STATE
	CtStatus       CtKey = unix.NFT_CT_STATUS
	CtProtocol     CtKey = unix.NFT_CT_PROTOCOL
	CtProtoDst     CtKey = unix.NFT_CT_PROTO_DST
	CtSrc4         CtKey = unix.NFT_CT_SRC_IP
	CtDst4         CtKey = unix.NFT_CT_DST_IP
	CtSrc6         CtKey = unix.NFT_CT_SRC_IP6
	CtDst6         CtKey = unix.NFT_CT_DST_IP6
	CtStateInvalid       = 1 << 0 // of no connection, or out of its window (NF_CT_STATE_INVALID_BIT)
	CtStatusDNAT         = 1 << 5 // IPS_DST_NAT
)

// Ct loads a property of the connection.
func Ct(key CtKey, dst Reg) Expr {
	return expr("ct", func(a *attrs) {
		a.u32(unix.NFTA_CT_DREG, uint32(dst))
		a.u32(unix.NFTA_CT_KEY, uint32(key))
	})
}

// CtOriginal loads a property of the connection's first packet, as it was before any translation.
func CtOriginal(key CtKey, dst Reg) Expr {
	return expr("ct", func(a *attrs) {
		a.u32(unix.NFTA_CT_DREG, uint32(dst))
		a.u32(unix.NFTA_CT_KEY, uint32(key))
		a.u8(unix.NFTA_CT_DIRECTION, 0)
	})
}

// DNAT sends the connection to the address and the port in two registers.
func DNAT(f Family, addr, port Reg) Expr {
	return expr("nat", func(a *attrs) {
		a.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.u32(unix.NFTA_NAT_FAMILY, uint32(f))
		a.u32(unix.NFTA_NAT_REG_ADDR_MIN, uint32(addr))
		a.u32(unix.NFTA_NAT_REG_PROTO_MIN, uint32(port))
	})
}

// DNATAddr sends the connection to the address in a register, and leaves the port as it is.
func DNATAddr(f Family, addr Reg) Expr {
	return expr("nat", func(a *attrs) {
		a.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		a.u32(unix.NFTA_NAT_FAMILY, uint32(f))
		a.u32(unix.NFTA_NAT_REG_ADDR_MIN, uint32(addr))
	})
}

const fullyRandom = 1 << 4 // NF_NAT_RANGE_PROTO_RANDOM_FULLY

// SNAT gives the connection the source address in a register and a random source port.
func SNAT(f Family, addr Reg) Expr {
	return expr("nat", func(a *attrs) {
		a.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
		a.u32(unix.NFTA_NAT_FAMILY, uint32(f))
		a.u32(unix.NFTA_NAT_REG_ADDR_MIN, uint32(addr))
		a.u32(unix.NFTA_NAT_FLAGS, fullyRandom)
	})
}

// Masquerade gives the connection the address of the interface it leaves by and a random source port.
func Masquerade() Expr {
	return expr("masq", func(a *attrs) { a.u32(unix.NFTA_MASQ_FLAGS, fullyRandom) })
}

// RejectReset answers a TCP packet with a reset.
func RejectReset() Expr {
	return expr("reject", func(a *attrs) { a.u32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST) })
}

// RejectPort answers with ICMP port unreachable. TCP over IPv6 does not listen to that: use RejectReset.
func RejectPort(f Family) Expr {
	code := uint8(3)
	if f == IPv6 {
		code = 4
	}
	return expr("reject", func(a *attrs) {
		a.u32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMP_UNREACH)
		a.u8(unix.NFTA_REJECT_ICMP_CODE, code)
	})
}

// Counter counts packets and bytes that come this far.
func Counter() Expr {
	return expr("counter", func(a *attrs) {
		a.u64(unix.NFTA_COUNTER_BYTES, 0)
		a.u64(unix.NFTA_COUNTER_PACKETS, 0)
	})
}
