//go:build linux

package nodes

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"minato/internal/nfnl"
)

// The tests of packets that the rules here are made of. Those for iptables' own chains are written as iptables-nft
// writes them, because it refuses to list a table with expressions it does not know.

type exprs []nfnl.Expr

// Where an address is in the header of its family.
func source(a netip.Addr) uint32 {
	if a.Is4() {
		return 12
	}
	return 8
}

func destination(a netip.Addr) uint32 { return source(a) + uint32(a.BitLen()/8) }

// within goes on if the address at an offset of the network header is in p, or with NotEqual if it is not.
func within(offset uint32, op nfnl.CmpOp, p netip.Prefix) exprs {
	length := p.Addr().BitLen() / 8
	load := nfnl.Payload(nfnl.NetworkHeader, offset, uint32(length), nfnl.R(0))
	compare := nfnl.Cmp(op, nfnl.R(0), p.Masked().Addr().AsSlice())
	if p.IsSingleIP() {
		return exprs{load, compare}
	}
	return exprs{load, nfnl.Bitwise(nfnl.R(0), nfnl.R(0), ipNet(p).Mask, make([]byte, length)), compare}
}

// throughLink compares the link a packet comes in or goes out by, with the length iptables gives to names.
func throughLink(key nfnl.MetaKey, op nfnl.CmpOp, name string) exprs {
	return exprs{nfnl.Meta(key, nfnl.R(0)), nfnl.Cmp(op, nfnl.R(0), append([]byte(name), 0))}
}

func toTCPPort(port uint16) exprs {
	return exprs{
		nfnl.Meta(nfnl.MetaL4Proto, nfnl.R(0)), nfnl.Cmp(nfnl.Equal, nfnl.R(0), []byte{unix.IPPROTO_TCP}),
		nfnl.Payload(nfnl.TransportHeader, 2, 2, nfnl.R(0)),
		nfnl.Cmp(nfnl.Equal, nfnl.R(0), binary.BigEndian.AppendUint16(nil, port)),
	}
}

// answers goes on for packets of connections that are under way: iptables' own match "conntrack" with
// "--ctstate RELATED,ESTABLISHED" (struct xt_conntrack_mtinfo3 of linux/netfilter/xt_conntrack.h).
func answers() exprs {
	const matchFlags, stateMask, size = 146, 150, 164
	info := make([]byte, size)
	binary.NativeEndian.PutUint16(info[matchFlags:], 1)        // XT_CONNTRACK_STATE
	binary.NativeEndian.PutUint16(info[stateMask:], 1<<1|1<<2) // established, related
	data := attribute(unix.NFTA_MATCH_NAME, []byte("conntrack\x00"))
	data = append(data, attribute(unix.NFTA_MATCH_REV, binary.BigEndian.AppendUint32(nil, 3))...)
	return exprs{{Name: "match", Data: append(data, attribute(unix.NFTA_MATCH_INFO, info)...)}}
}

// attribute is a netlink attribute, padded to 4 bytes.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func accept() exprs { return exprs{nfnl.Counter(), nfnl.Decide(nfnl.Verdict{Code: nfnl.Accept})} }

// all is the test that each of the parts holds, in their order.
func all(parts ...exprs) (x exprs) {
	for _, p := range parts {
		x = append(x, p...)
	}
	return x
}
