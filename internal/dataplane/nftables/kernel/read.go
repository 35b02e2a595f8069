//go:build linux

package kernel

import (
	"net/netip"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// Pin is the endpoint that session affinity keeps a client at.
type Pin struct {
	Endpoint netip.AddrPort // invalid: none
	Left     time.Duration  // until it is forgotten
}

// Read looks up what the kernel does with a new connection with the key, element by element as a packet would, and
// with that of one client; an invalid client is none. An endpoint that is looked up and not there is the zero one.
// Unlike Lookup it does not trust what was committed, and it waits for no Program. Answer.Service and Sources stay
// empty.
func (a *Applier) Read(k nftables.Key, client netip.Addr) (answer Answer, pin Pin, ok bool, err error) {
	for _, t := range a.tables {
		if t.ipv6 == k.Addr.Is6() {
			return t.lookUp(k, client)
		}
	}
	return answer, pin, false, nil
}

func (t *table) lookUp(k nftables.Key, client netip.Addr) (answer Answer, pin Pin, ok bool, err error) {
	svc, ok, err := t.one(Element{Set: setSvc, Key: k})
	if err != nil || !ok {
		return answer, pin, false, err
	}
	_, masquerade, err := t.one(Element{Set: setMasq, Key: k})
	if err != nil {
		return answer, pin, false, err
	}
	counted, err := t.poolConnections(svc.Pool)
	if err != nil {
		return answer, pin, false, err
	}
	answer = Answer{Pool: svc.Pool, Masquerade: masquerade, Connections: counted}
	switch svc.Class.base() {
	case rejected:
		answer.Verdict = model.Reject
		return answer, pin, true, nil
	case dropped:
		answer.Verdict = model.Drop
		return answer, pin, true, nil
	}
	answer.Affinity = time.Duration(svc.Class.seconds) * time.Second
	for i := range svc.Class.n {
		slot, _, err := t.one(Element{Set: setSlot, Pool: svc.Pool, Slot: i})
		if err != nil {
			return answer, pin, false, err
		}
		ep, _, err := t.one(Element{Set: setEp, Endpoint: slot.Endpoint})
		if err != nil {
			return answer, pin, false, err
		}
		answer.Endpoints = append(answer.Endpoints, ep.Target)
	}
	if answer.Affinity > 0 && client.IsValid() {
		pin, err = t.pin(svc.Pool, client)
	}
	return answer, pin, true, err
}

// one looks up the element with e's key; where there is none it is the zero one.
func (t *table) one(e Element) (Element, bool, error) {
	n, ok, err := t.raw(e)
	if err != nil || !ok {
		return Element{}, false, err
	}
	e, ok = t.decode(e.Set, n)
	return e, ok, nil
}

// raw is the element with e's key as the kernel has it.
func (t *table) raw(e Element) (n nfnl.Element, ok bool, err error) {
	c := encoder{family: t.family}
	return t.kernel.Element(t.id, t.table, string(e.Set), c.key(e).Key)
}

// pin reads whom the rules remember for a client. What is remembered may be gone by now: then it counts for nothing.
func (t *table) pin(pool uint32, client netip.Addr) (Pin, error) {
	n, ok, err := t.kernel.Element(t.id, t.table, string(setAff), t.addr(number(nil, pool), client))
	if err != nil || !ok {
		return Pin{}, err
	}
	d := reader{f: t.family, b: n.Data}
	d.number()
	ep, _, err := t.one(Element{Set: setEp, Endpoint: d.number()})
	return Pin{ep.Target, time.Duration(n.Expires) * time.Millisecond}, err
}
