package ndp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"minato/internal/announce/lan"
)

// Where things are in a packet of Neighbor Discovery (RFC 8200, 3; RFC 4861, 4.3 and 4.4).
const (
	headerLen    = 40
	solicitLen   = headerLen + 24 // without options
	advertiseLen = solicitLen + 8 // with the option that has the link-layer address

	solicitation  = 135
	advertisement = 136

	sourceLinkAddress, targetLinkAddress = 1, 2 // options

	solicited, override = 1 << 6, 1 << 5 // flags of an advertisement
)

// allNodes is who hears what is told to everybody (RFC 4291, 2.7.1).
var allNodes = netip.MustParseAddr("ff02::1")

// parse reads a solicitation or an advertisement; ok is false for anything that RFC 4861, 7.1.1 and 7.1.2 do not let
// pass.
func parse(b []byte) (q lan.Question, ok bool) {
	if len(b) < solicitLen || b[0]>>4 != 6 || b[6] != unix.IPPROTO_ICMPV6 || b[7] != 255 {
		return q, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < solicitLen-headerLen || headerLen+length > len(b) {
		return q, false
	}
	b = b[:headerLen+length]
	advertised := b[40] == advertisement
	if !advertised && b[40] != solicitation || b[41] != 0 || checksum(b) != 0 {
		return q, false
	}
	q.From, q.Addr = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[48:64]))
	for options := b[solicitLen:]; len(options) > 0; {
		if len(options) < 2 || options[1] == 0 || len(options) < 8*int(options[1]) {
			return q, false
		}
		if options[1] == 1 && (options[0] == sourceLinkAddress && !advertised || options[0] == targetLinkAddress && advertised) {
			q.MAC = lan.MAC(options[2:8])
		}
		options = options[8*int(options[1]):]
	}
	if advertised {
		if q.From = q.Addr; q.MAC == (lan.MAC{}) {
			return q, false
		}
	}
	return q, !q.Addr.IsMulticast() && (q.From.IsUnspecified() || q.From.IsGlobalUnicast() || q.From.IsLinkLocalUnicast())
}

// advertise is an advertisement that addr is at own, from one of the node's own addresses to whoever asked, or to
// everybody. It overrides what others said before, since an address moves between nodes.
func advertise(addr, from, to netip.Addr, own lan.MAC) []byte {
	b := make([]byte, advertiseLen)
	b[0], b[5], b[6], b[7] = 6<<4, advertiseLen-headerLen, unix.IPPROTO_ICMPV6, 255
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	b[40], b[44] = advertisement, override
	if !to.IsMulticast() {
		b[44] |= solicited
	}
	copy(b[48:], addr.AsSlice())
	b[64], b[65] = targetLinkAddress, 1
	copy(b[66:], own[:])
	binary.BigEndian.PutUint16(b[42:], checksum(b))
	return b
}

// probe asks whether anybody has addr, without saying who asks.
func probe(addr netip.Addr) []byte {
	b := make([]byte, solicitLen)
	b[0], b[5], b[6], b[7] = 6<<4, solicitLen-headerLen, unix.IPPROTO_ICMPV6, 255
	copy(b[24:], group(addr).AsSlice())
	b[40] = solicitation
	copy(b[48:], addr.AsSlice())
	binary.BigEndian.PutUint16(b[42:], checksum(b))
	return b
}

// checksum is that of ICMPv6 with its pseudo header (RFC 4443, 2.3): 0 for a packet whose own is right.
func checksum(b []byte) uint16 {
	sum := uint32(len(b)-headerLen) + unix.IPPROTO_ICMPV6
	for b = b[8:]; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// group is the multicast group in which an address is asked for, solicited-node (RFC 4291, 2.7.1).
func group(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// multicast is the Ethernet address of a group (RFC 2464, 7).
func multicast(group netip.Addr) lan.MAC {
	b := group.As16()
	return lan.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
