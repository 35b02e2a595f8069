package dns

import (
	"net/netip"
	"strings"
)

const (
	maxName   = 255 // bytes of a name on the wire, with the root label (RFC 1035, 3.1)
	maxLabels = 127
)

// Name is the name of a question: lower-cased wire bytes and where its labels start. It is reused from query to
// query, so that parsing allocates nothing.
type Name struct {
	wire   [maxName]byte
	n      int // bytes, with the root label
	starts [maxLabels + 1]uint8
	labels int // without the root
}

// Parse reads an uncompressed name at the start of b and returns its length on the wire. A pointer, a label of more
// than 63 bytes, or a name of more than 255 is refused: no honest client puts one into a question.
func (n *Name) Parse(b []byte) (length int, ok bool) {
	n.n, n.labels = 0, 0
	for i := 0; i < len(b) && i < maxName; {
		l := int(b[i])
		if l == 0 {
			n.wire[i] = 0
			n.n = i + 1
			n.starts[n.labels] = uint8(i)
			return n.n, true
		}
		if l > 63 || i+1+l >= len(b) || i+1+l >= maxName {
			return 0, false
		}
		n.starts[n.labels] = uint8(i)
		n.labels++
		n.wire[i] = byte(l)
		for j := i + 1; j <= i+l; j++ {
			n.wire[j] = lower(b[j])
		}
		i += 1 + l
	}
	return 0, false
}

// Wire is the lower-cased name. It is valid until the next Parse.
func (n *Name) Wire() []byte { return n.wire[:n.n] }

// String is the name as text, with its final dot.
func (n *Name) String() string { return text(string(n.Wire())) }

// ParseName turns text into a lower-cased wire name; ok is false when it is none. It knows no escapes.
func ParseName(s string) (wire string, ok bool) { return parseName(s) }

// ReverseName is the lower-cased wire name that stands for an address in in-addr.arpa or ip6.arpa.
func ReverseName(a netip.Addr) string { return reverseName(a) }

// from is the name without its first i labels.
func (n *Name) from(i int) []byte { return n.wire[n.starts[i]:n.n] }

// label is the i-th label from the left, without its length byte.
func (n *Name) label(i int) []byte {
	at := int(n.starts[i])
	return n.wire[at+1 : at+1+int(n.wire[at])]
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// reverseIn reports whether n belongs to the reverse zone of p, and how many labels stand in front of the zone's
// apex. Zones are cut at whole octets or nibbles: 10.96.0.0/12 is sixteen zones of two octets.
func (n *Name) reverseIn(p netip.Prefix) (front int, ok bool) {
	var b [16]byte
	if p.Addr().Is4() {
		k := (p.Bits() + 7) / 8
		if front = n.labels - 2 - k; front < 0 || string(n.from(front+k)) != inAddrArpa {
			return 0, false
		}
		for i := range k {
			if b[i], ok = octet(n.label(front + k - 1 - i)); !ok {
				return 0, false
			}
		}
		return front, p.Contains(netip.AddrFrom4([4]byte(b[:4])))
	}
	k := (p.Bits() + 3) / 4
	if front = n.labels - 2 - k; front < 0 || string(n.from(front+k)) != ip6Arpa {
		return 0, false
	}
	for i := range k {
		l := n.label(front + k - 1 - i)
		v, ok := nibble(l[0])
		if !ok || len(l) != 1 {
			return 0, false
		}
		b[i/2] |= v << (4 * (1 - i%2))
	}
	return front, p.Contains(netip.AddrFrom16(b))
}

// octet reads "0" to "255", without leading zeros.
func octet(l []byte) (byte, bool) {
	if len(l) == 0 || len(l) > 3 || len(l) > 1 && l[0] == '0' {
		return 0, false
	}
	v := 0
	for _, c := range l {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return byte(v), v <= 255
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// parseName turns text into a lower-cased wire name. It knows no escapes: what comes from Kubernetes has none.
func parseName(s string) (wire string, ok bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "\x00", true
	}
	wire = join("\x00", strings.Split(s, ".")...)
	return wire, wire != ""
}

// text prints a wire name with its final dot. Bytes that would be taken for something else are escaped as in a zone
// file (RFC 1035, 5.1), so that two different names never print alike.
func text(wire string) string {
	if wire == "\x00" {
		return "."
	}
	var b strings.Builder
	for i := 0; i < len(wire) && wire[i] != 0; i += 1 + int(wire[i]) {
		for _, c := range []byte(wire[i+1 : i+1+int(wire[i])]) {
			switch {
			case c == '.' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c <= ' ' || c > '~':
				b.WriteString("\\" + string([]byte{'0' + c/100, '0' + c/10%10, '0' + c%10}))
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('.')
	}
	return b.String()
}
