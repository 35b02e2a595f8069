//go:build linux

// Package nfnl speaks nfnetlink to the nf_tables of one network namespace: batches of changes that are applied
// whole or not at all, and dumps of what is there.
//
// A Batch collects messages; a Conn commits it. Expressions are made by functions (Payload, Lookup, ...) and are
// the kernel's own register programs; the nft program and its grammar are not involved, which is why rules can be
// built here that nft cannot write (facts: include/uapi/linux/netfilter/nf_tables.h). The kernel must be 5.13 or
// newer for everything in this package.
//
// It knows nothing of Services, keeps no record of what was committed, and retries nothing but interrupted calls.
package nfnl

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Family is an address family of tables.
type Family uint8

// The families in use here. A table of family Inet sees both others.
const (
	Inet Family = unix.NFPROTO_INET
	IPv4 Family = unix.NFPROTO_IPV4
	IPv6 Family = unix.NFPROTO_IPV6
)

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is6() {
		return IPv6
	}
	return IPv4
}

func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	}
	return "any"
}

// Table is a table. Comment is what nft prints as its comment; it is kept in the user data.
type Table struct {
	Family  Family
	Name    string
	Comment string
}

// Hook is a place in the packet path to which a base chain is attached.
type Hook uint32

// The hooks of IPv4 and IPv6.
const (
	Prerouting  Hook = unix.NF_INET_PRE_ROUTING
	Input       Hook = unix.NF_INET_LOCAL_IN
	Forward     Hook = unix.NF_INET_FORWARD
	Output      Hook = unix.NF_INET_LOCAL_OUT
	Postrouting Hook = unix.NF_INET_POST_ROUTING
)

// The priorities of base chains, as nft names them.
const (
	PriorityDNAT   int32 = -100
	PriorityFilter int32 = 0
	PrioritySNAT   int32 = 100
)

// Chain is a chain; with a Type ("nat", "filter", "route") it is a base chain at Hook.
type Chain struct {
	Family   Family
	Table    string
	Name     string
	Type     string
	Hook     Hook
	Priority int32
}

// Rule is a rule. Handle is given by the kernel: it is there in dumps and names the rule to delete.
type Rule struct {
	Family  Family
	Table   string
	Chain   string
	Handle  uint64
	Comment string // at most 128 bytes; iptables and nft show it
	Exprs   []Expr
}

// SetFlags are properties of a set.
type SetFlags uint32

// The flags of sets.
const (
	Interval     SetFlags = unix.NFT_SET_INTERVAL // keys are ranges
	Map          SetFlags = unix.NFT_SET_MAP      // elements have data
	Timeout      SetFlags = unix.NFT_SET_TIMEOUT  // elements expire
	Dynamic      SetFlags = unix.NFT_SET_EVAL     // rules may change it
	Concatenated SetFlags = 0x80                  // NFT_SET_CONCAT: with Interval, each field of the key has a range of its own
)

// Type is the type of a key or of data. The kernel looks at its length only; nft prints by it.
type Type uint32

// Types of the parts of keys and data.
const (
	TypeAddr4   Type = 7
	TypeAddr6   Type = 8
	TypeProto   Type = 12 // in 4 bytes, the last three zero
	TypePort    Type = 13 // big endian in 4 bytes, the last two zero
	TypeMark    Type = 19 // a 32-bit number in the byte order of the machine
	TypeVerdict Type = 0xffffff00
)

// Concat is the type of parts one after the other.
func Concat(parts ...Type) Type {
	var t Type
	for _, p := range parts {
		t = t<<6 | p
	}
	return t
}

// Set is a set or, with the flag Map, a map.
type Set struct {
	Family           Family
	Table            string
	Name             string
	Flags            SetFlags
	KeyType          Type
	KeyLen           uint32    // bytes
	Fields           [4]uint32 // bytes of each field of the key, with Concatenated
	DataType         Type
	DataLen          uint32 // bytes, 0 for verdicts
	Size             uint32 // most elements, 0 without limit
	DefaultTimeoutMS uint64
}

// Element is one element of a set. It holds Data in a plain map, Verdict in a map of TypeVerdict.
type Element struct {
	Key      []byte
	KeyEnd   []byte // the last keys of the fields' ranges, in a set that is Concatenated
	Data     []byte
	Verdict  *Verdict
	CatchAll bool   // matches what nothing else does; no Key
	End      bool   // first key after an interval
	Timeout  uint64 // milliseconds, 0: the set's own
	Expires  uint64 // milliseconds that are left of it; dumps and look-ups only
	Comment  string // at most 250 bytes; nft shows it
	Counted  bool   // it counts the packets that find it, from 0 when it is made
	Packets  uint64 // that it has counted; dumps and look-ups only
}

// Verdict ends a chain or goes to another one.
type Verdict struct {
	Code  VerdictCode
	Chain string // Jump and Goto only
}

// VerdictCode is a kind of verdict.
type VerdictCode int32

// The verdicts.
const (
	Drop   VerdictCode = 0
	Accept VerdictCode = 1
	Jump   VerdictCode = -3
	Goto   VerdictCode = -4
	Return VerdictCode = -5
)
