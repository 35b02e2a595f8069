package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// Resolution is what a client learns of a name by asking for its addresses.
type Resolution struct {
	Exists  bool         // NOERROR, perhaps without an address
	Outside bool         // the name, or where its CNAME leads, is for an upstream to answer
	CNAME   string       // the last alias followed, without its final dot; empty when there was none
	Addrs   []netip.Addr // of both families
}

// Resolve answers a fully qualified name as the server would, for programs in this process.
func (v View) Resolve(name string) (r Resolution) {
	wire, ok := parseName(name)
	if !ok {
		return r
	}
	for _, qtype := range []uint16{TypeA, TypeAAAA} {
		question := append(make([]byte, headerLen), wire...)
		question = append(question, 0, byte(qtype), 0, 1)
		var n Name
		n.Parse(question[headerLen:])
		msg, a := v.Append(question, &n, qtype, maxMessage, 0)
		r.Exists = r.Exists || !a.Foreign && a.Rcode == RcodeSuccess
		r.Outside = r.Outside || a.Foreign || a.Chase != ""
		at := len(question)
		for range a.Answers {
			next := NextRecord(msg, at)
			r.take(msg[TTLOffset(msg, at)-4 : next])
			at = next
		}
	}
	return r
}

// take notes one record, given from its type on.
func (r *Resolution) take(b []byte) {
	contents := b[10:]
	switch binary.BigEndian.Uint16(b) {
	case TypeA, TypeAAAA:
		a, _ := netip.AddrFromSlice(contents)
		r.Addrs = append(r.Addrs, a)
	case TypeCNAME:
		r.CNAME = strings.TrimSuffix(text(string(contents)), ".")
	}
}
