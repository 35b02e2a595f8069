package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"minato/internal/model"
)

// ErrSaved says that what was given to Restore is not what Append appended for this zone.
var ErrSaved = errors.New("not a saved table of this cluster domain")

// Restore fills an empty table with what Append appended in another process: everything, and then what was new, in that
// order. It is served until the first complete snapshot is published; then a Service that is held keeps the records
// from here. Nothing changes on error.
func (t *Table) Restore(saved ...[]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base.Revision > 0 {
		return errors.New("a table that names were published in is not restored")
	}
	s := sum{namespaces: map[string]bool{}, services: map[model.ServiceName]records{}}
	for _, b := range saved {
		if err := s.add(&decoder{b: b, zone: t.zone}); err != nil {
			return err
		}
	}
	if len(saved) == 0 {
		return ErrSaved
	}
	e := t.bare()
	t.base = model.Empty().With(func(edit *model.Edit) {
		for ns := range s.namespaces {
			edit.SetNamespace(ns, true)
			t.refer(e, ns, 1)
		}
	})
	for name, r := range s.services {
		t.change(e, name.Namespace, records{}, r)
	}
	t.odd, t.round, t.restored = s.services, round{}, true
	t.nameserver(e, t.serviceAddrs())
	e.t.revision, e.t.complete = s.revision, true
	t.tree.Store(e.t)
	return nil
}

// sum is what several calls of Append say together.
type sum struct {
	revision   uint64
	namespaces map[string]bool
	services   map[model.ServiceName]records
}

// add reads what one call of Append appended.
func (s *sum) add(d *decoder) error {
	if d.text() != savedForm || d.text() != d.zone.domain {
		return ErrSaved
	}
	s.revision = d.number()
	for ns := d.text(); ns != ""; ns = d.text() {
		if s.namespaces[ns] = true; d.bytes(1)[0] == 0 {
			delete(s.namespaces, ns)
		}
	}
	for ns := d.text(); ns != ""; ns = d.text() {
		name := model.ServiceName{Namespace: ns, Name: d.text()}
		if s.services[name] = d.records(name); len(s.services[name].names)+len(s.services[name].pointers) == 0 {
			delete(s.services, name)
		}
	}
	if len(d.b) > 0 {
		d.fail()
	}
	return d.err
}

// addrs are the addresses behind a name.
func (r records) addrs(name string) (out []netip.Addr) {
	for _, n := range r.names {
		if n.name == name {
			for _, i := range n.items {
				out = append(out, i.addr)
			}
		}
	}
	return out
}

// decoder reads what Append appended. After an error it reads zero values.
type decoder struct {
	b    []byte
	zone *zone
	err  error
}

func (d *decoder) fail() { d.b, d.err = nil, ErrSaved }

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return make([]byte, min(n, 4)) // callers read a few bytes of known size
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) text() string { return string(d.bytes(d.number())) }

func (d *decoder) addr() netip.Addr {
	n := d.number()
	a, ok := netip.AddrFromSlice(d.bytes(n))
	if !ok {
		d.fail()
	}
	return a
}

// name reads the front of a name that ends with base; a name that is none is an error.
func (d *decoder) name(base string) string {
	wire := d.text() + base
	var n Name
	if length, ok := n.Parse([]byte(wire)); !ok || length != len(wire) || string(n.Wire()) != wire {
		d.fail()
	}
	return wire
}

func (d *decoder) records(s model.ServiceName) (r records) {
	base := d.zone.under(s.Name, s.Namespace, "svc")
	if base == "" {
		d.fail()
	}
	for range d.number() {
		n := named{name: d.name(base)}
		if n.target = d.text(); n.target != "" {
			if _, ok := new(Name).Parse([]byte(n.target)); !ok {
				d.fail()
			}
		}
		for range d.number() {
			i := item{target: d.name(base), addr: d.addr()}
			port := d.bytes(3)
			i.port, i.near = binary.BigEndian.Uint16(port), port[2]
			if n.items = append(n.items, i); d.err != nil {
				return records{}
			}
		}
		if r.names = append(r.names, n); d.err != nil {
			return records{}
		}
	}
	for range d.number() {
		p := pointer{target: d.name(base), addr: d.addr()}
		flags := d.bytes(2)
		p.cluster, p.dashed = flags[0] == 1, flags[1] == 1
		if r.pointers = append(r.pointers, p); d.err != nil {
			return records{}
		}
	}
	return r
}
