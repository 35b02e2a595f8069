//go:build linux

package kernel

import (
	"fmt"
	"net/netip"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// Element is one element of one of the maps, in words. Which fields count depends on the set.
type Element struct {
	Set      SetName
	Key      nftables.Key   // key of svc and masq; its Addr alone that of hairpin, vip, lb and pass
	Pool     uint32         // data of svc, key of slot, allow and count; count: 0 is for all that have none of their own
	Prefix   netip.Prefix   // key of allow
	Slot     uint32         // key of slot
	Endpoint uint32         // data of slot, key of ep
	Target   netip.AddrPort // data of ep
	Class    class          // data of svc, key of class
	Verdict  model.Verdict  // key of count
	Label    string         // comment of svc: whose pool it is
}

// key is the element without its data: what makes it the same element.
func (e Element) key() Element {
	switch e.Set {
	case setSvc:
		return Element{Set: e.Set, Key: e.Key}
	case setSlot:
		return Element{Set: e.Set, Pool: e.Pool, Slot: e.Slot}
	case setEp:
		return Element{Set: e.Set, Endpoint: e.Endpoint}
	}
	return e
}

func (e Element) String() string {
	switch e.Set {
	case setSvc:
		return fmt.Sprintf("svc %s: pool %d of %s, %s", e.Key, e.Pool, e.Label, e.Class)
	case setSlot:
		return fmt.Sprintf("slot %d of pool %d: endpoint %d", e.Slot, e.Pool, e.Endpoint)
	case setEp:
		return fmt.Sprintf("ep %d: %s", e.Endpoint, e.Target)
	case setMasq:
		return fmt.Sprintf("masq %s", e.Key)
	case setClass:
		return fmt.Sprintf("class %s", e.Class)
	case setAllow:
		return fmt.Sprintf("allow %s to pool %d", e.Prefix, e.Pool)
	case setCount:
		return fmt.Sprintf("count of pool %d, %s", e.Pool, e.Verdict)
	}
	return fmt.Sprintf("%s %s", e.Set, e.Key.Addr)
}

// encoder makes elements for the kernel. Their bytes are in one buffer, which grows with use.
type encoder struct {
	*family
	buf []byte
}

func (c *encoder) bytes(fill func(b []byte) []byte) []byte {
	start := len(c.buf)
	c.buf = fill(c.buf)
	return c.buf[start:len(c.buf):len(c.buf)]
}

func (c *encoder) key(e Element) nfnl.Element {
	if e == uncounted {
		return nfnl.Element{CatchAll: true}
	}
	n := nfnl.Element{Key: c.bytes(func(b []byte) []byte { return c.appendKey(b, e) })}
	if e.Set == setAllow {
		_, last := bounds(e.Prefix)
		n.KeyEnd = c.bytes(func(b []byte) []byte { return c.addr(number(b, e.Pool), last) })
	}
	return n
}

func (c *encoder) whole(e Element) nfnl.Element {
	n := c.key(e)
	n.Data = c.bytes(func(b []byte) []byte { return c.appendData(b, e) })
	n.Comment, n.Counted = e.Label, e.Set == setCount && e != uncounted
	return n
}

func (c *encoder) appendKey(b []byte, e Element) []byte {
	switch e.Set {
	case setSvc, setMasq:
		b = c.addr(number(b, uint32(e.Key.Scope)), e.Key.Addr)
		return port(append(b, byte(e.Key.Protocol), 0, 0, 0), e.Key.Port)
	case setSlot:
		return number(number(b, e.Pool), e.Slot)
	case setEp:
		return number(b, e.Endpoint)
	case setHairpin:
		return c.addr(c.addr(b, e.Key.Addr), e.Key.Addr)
	case setClass:
		return e.Class.words(b)
	case setAllow:
		return c.addr(number(b, e.Pool), e.Prefix.Addr())
	case setCount:
		return number(number(b, e.Pool), uint32(e.Verdict))
	}
	return c.addr(b, e.Key.Addr)
}

func (c *encoder) appendData(b []byte, e Element) []byte {
	switch e.Set {
	case setSvc:
		return e.Class.words(number(number(b, 0), e.Pool))
	case setSlot:
		return number(number(b, 0), e.Endpoint)
	case setEp:
		return port(c.addr(b, e.Target.Addr()), e.Target.Port())
	}
	return b
}

// decode is the reverse of encode. It reports false for an element that encode cannot have made.
func (f *family) decode(set SetName, n nfnl.Element) (Element, bool) {
	e := Element{Set: set}
	if n.CatchAll {
		return uncounted, set == setCount
	}
	k, d := reader{f: f, b: n.Key}, reader{f: f, b: n.Data}
	switch set {
	case setSvc, setMasq:
		e.Key = nftables.Key{Scope: model.Scope(k.number()), Addr: k.addr(), Protocol: model.Protocol(k.protocol()), Port: k.port()}
	case setSlot:
		e.Pool, e.Slot = k.number(), k.number()
		k.bad = k.bad || e.Slot >= maxSlots
	case setEp:
		e.Endpoint = k.number()
	case setClass:
		e.Class = k.class()
		return e, !k.bad && n.Verdict != nil && n.Verdict.Chain == e.Class.chain()
	case setAllow:
		end := reader{f: f, b: n.KeyEnd}
		e.Pool = k.number()
		sameEnd := end.number() == e.Pool
		var ok bool
		e.Prefix, ok = prefixOf(k.addr(), end.addr())
		k.bad = k.bad || end.bad || !ok || !sameEnd
	case setCount:
		e.Pool, e.Verdict = k.number(), model.Verdict(k.number())
	case setHairpin:
		e.Key.Addr = k.addr()
		k.bad = k.bad || k.addr() != e.Key.Addr
	default:
		e.Key.Addr = k.addr()
	}
	switch set {
	case setSvc:
		d.number()
		e.Pool, e.Class, e.Label = d.number(), d.class(), n.Comment
	case setSlot:
		d.number()
		e.Endpoint = d.number()
	case setEp:
		addr := d.addr()
		e.Target = netip.AddrPortFrom(addr, d.port())
	}
	return e, !k.bad && !d.bad && len(k.b) == 0 && len(d.b) == 0
}
