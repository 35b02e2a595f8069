//go:build linux

package nfnl

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// attrs appends netlink attributes. Integers are big endian, as nf_tables wants them.
type attrs []byte

func (a *attrs) raw(typ uint16, v []byte) {
	b := binary.NativeEndian.AppendUint16(*a, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	*a = append(b, make([]byte, -len(v)&3)...)
}

func (a *attrs) u8(typ uint16, v uint8) { a.raw(typ, []byte{v}) }

func (a *attrs) u32(typ uint16, v uint32) {
	b := binary.NativeEndian.AppendUint16(*a, 8)
	b = binary.NativeEndian.AppendUint16(b, typ)
	*a = binary.BigEndian.AppendUint32(b, v)
}

func (a *attrs) u64(typ uint16, v uint64) { a.raw(typ, binary.BigEndian.AppendUint64(nil, v)) }
func (a *attrs) str(typ uint16, s string) { a.raw(typ, append([]byte(s), 0)) }

// open starts a nested attribute; close, given what open returned, ends it.
func (a *attrs) open(typ uint16) int {
	start := len(*a)
	*a = binary.NativeEndian.AppendUint16(*a, 0)
	*a = binary.NativeEndian.AppendUint16(*a, typ|unix.NLA_F_NESTED)
	return start
}

func (a attrs) close(start int) {
	binary.NativeEndian.PutUint16(a[start:], uint16(len(a)-start))
}

// Attrs goes over the attributes in b. A broken one ends the walk.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if n < 4 || n > len(b) || !yield(typ, b[4:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// Attr finds the attribute of a type in b, nil when it is not there.
func Attr(b []byte, typ uint16) []byte {
	for t, v := range Attrs(b) {
		if t == typ {
			return v
		}
	}
	return nil
}

func getU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func getU64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func getStr(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Comments are kept as nft and iptables keep them: a type byte 0, a length byte, the text with its final zero.
func (a *attrs) comment(typ uint16, s string) {
	if s != "" {
		a.raw(typ, append([]byte{0, byte(len(s) + 1)}, s+"\x00"...))
	}
}

func getComment(b []byte) string {
	for len(b) >= 2 && 2+int(b[1]) <= len(b) {
		if b[0] == 0 {
			return getStr(b[2 : 2+b[1]])
		}
		b = b[2+b[1]:]
	}
	return ""
}

// Number is a 32-bit number in the machine's byte order, as nf_tables keeps numbers in registers and maps.
func Number(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
