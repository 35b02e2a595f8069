package server

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"minato/internal/dns"
)

// hosts is Hosts ready for look-ups by wire name. It is immutable.
type hosts struct {
	addrs   map[string][]netip.Addr
	names   map[string][]string // reverse names
	ttl     uint32
	through []string
}

func newHosts(h *Hosts) (*hosts, error) {
	if h == nil {
		return nil, nil
	}
	out := &hosts{addrs: map[string][]netip.Addr{}, names: map[string][]string{}, ttl: uint32(h.TTL)}
	for name, addrs := range h.Addrs {
		wire, ok := dns.ParseName(name)
		if !ok {
			return nil, fmt.Errorf("hosts: %q is not a domain name", name)
		}
		out.addrs[wire] = addrs
		for _, a := range addrs {
			reverse := dns.ReverseName(a)
			out.names[reverse] = append(out.names[reverse], wire)
		}
	}
	var err error
	if out.through, err = wires(h.Fallthrough); err != nil {
		return nil, fmt.Errorf("hosts: fallthrough: %w", err)
	}
	return out, nil
}

// respond answers a question about a name that is listed; done is false when it is not, and another may know it.
func (h *hosts) respond(r *responder, out []byte, limit int) (reply []byte, done bool) {
	q := &r.q
	wire := q.name.Wire()
	addrs, listed := h.addrs[string(wire)]
	names := h.names[string(wire)]
	if !listed && (names == nil || q.qtype != dns.TypePTR) {
		if _, through := longest(h.through, wire); through {
			return nil, false
		}
		r.count.reply(otherZone, dns.RcodeServFail)
		return q.finish(out, flagAA, dns.RcodeServFail, 0, 0, 0), true
	}
	answers, whole := uint16(0), true
	add := func(record []byte) {
		if whole = whole && len(out)+len(record) <= q.room(limit); whole {
			out = append(out, record...)
			answers++
		}
	}
	for _, a := range addrs {
		if a.Is4() && q.qtype == dns.TypeA || a.Is6() && q.qtype == dns.TypeAAAA {
			add(record(q.qtype, h.ttl, a.AsSlice()))
		}
	}
	if q.qtype == dns.TypePTR {
		for _, n := range names {
			add(record(q.qtype, h.ttl, []byte(n)))
		}
	}
	flags := uint16(flagAA)
	if !whole {
		flags |= flagTC
	}
	r.count.reply(otherZone, dns.RcodeSuccess)
	return q.finish(out, flags, dns.RcodeSuccess, answers, 0, 0), true
}

// record is one record at the question's name.
func record(qtype uint16, ttl uint32, contents []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0xC0, headerLen}, qtype)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(contents)))
	return append(b, contents...)
}
