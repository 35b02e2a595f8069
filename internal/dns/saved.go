package dns

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"strings"

	"minato/internal/model"
)

// ErrSaved says that what was given to Restore is not what AppendSaved wrote for this zone.
var ErrSaved = errors.New("not a saved table of this cluster domain")

// savedForm begins what AppendSaved writes. It changes with the form.
const savedForm = "names 1"

// Edition changes whenever what AppendSaved appends may.
func (t *Table) Edition() uint64 { return t.edition.Load() }

// AppendSaved appends all records, by Service, in the form that Restore reads; ok is false before there is a complete
// table. It costs what all Services cost, and holds up Publish only while it takes the present state.
func (t *Table) AppendSaved(b []byte) (saved []byte, ok bool) {
	t.mu.Lock()
	z, base, odd := t.zone, t.base, maps.Clone(t.odd)
	t.mu.Unlock()
	if !base.Complete {
		return b, false
	}
	b = appendText(appendText(b, savedForm), z.domain)
	b = binary.AppendUvarint(b, base.Revision)
	for ns := range base.Namespaces() {
		b = appendText(b, ns)
	}
	b = appendText(b, "")
	for s := range base.Services() {
		if _, other := odd[s.Name]; !other {
			b = z.appendRecords(b, s.Name, z.recordsOf(s, base.Node))
		}
	}
	for name, shown := range odd {
		b = z.appendRecords(b, name, shown)
	}
	return appendText(b, ""), true
}

// appendRecords writes the records of one Service. Its names, and those that they point to, end with its own, which is
// left out.
func (z *zone) appendRecords(b []byte, name model.ServiceName, r records) []byte {
	if len(r.names)+len(r.pointers) == 0 {
		return b
	}
	base := z.under(name.Name, name.Namespace, "svc")
	front := func(b []byte, wire string) []byte { return appendText(b, strings.TrimSuffix(wire, base)) }
	b = appendText(appendText(b, name.Namespace), name.Name)
	b = binary.AppendUvarint(b, uint64(len(r.names)))
	for _, n := range r.names {
		b = appendText(front(b, n.name), n.target)
		b = binary.AppendUvarint(b, uint64(len(n.items)))
		for _, i := range n.items {
			b = appendText(front(b, i.target), string(i.addr.AsSlice()))
			b = append(binary.BigEndian.AppendUint16(b, i.port), i.near)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(r.pointers)))
	for _, p := range r.pointers {
		b = appendText(front(b, p.target), string(p.addr.AsSlice()))
		b = append(b, byte(existence(p.cluster)), byte(existence(p.dashed)))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Restore fills an empty table with what AppendSaved wrote in another process. It is served until the first complete
// snapshot is published; then a Service that is held keeps the records from here. Nothing changes on error.
func (t *Table) Restore(saved []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base.Revision > 0 {
		return errors.New("a table that names were published in is not restored")
	}
	d := decoder{b: saved, zone: t.zone}
	if d.text() != savedForm || d.text() != t.zone.domain {
		return ErrSaved
	}
	revision := d.number()
	e, odd := t.bare(), map[model.ServiceName]records{}
	base := model.Empty().With(func(edit *model.Edit) {
		for ns := d.text(); ns != ""; ns = d.text() {
			edit.SetNamespace(ns, true)
			t.refer(e, ns, 1)
		}
	})
	for ns := d.text(); ns != ""; ns = d.text() {
		name := model.ServiceName{Namespace: ns, Name: d.text()}
		r := d.records(name)
		if _, twice := odd[name]; twice || d.err != nil {
			break
		}
		odd[name] = r
		t.change(e, ns, records{}, r)
	}
	if d.err != nil || len(d.b) > 0 {
		return ErrSaved
	}
	t.base, t.odd, t.round, t.restored = base, odd, round{}, true
	t.nameserver(e, t.serviceAddrs())
	e.t.revision, e.t.complete = revision, true
	t.tree.Store(e.t)
	return nil
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

// decoder reads what AppendSaved wrote. After an error it reads zero values.
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
