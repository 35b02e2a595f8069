package dns

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"minato/internal/model"
)

// savedForm begins what Append appends. It changes with the form.
const savedForm = "names 2"

// State is what a complete table says at one moment, by Service. It does not change.
type State struct {
	zone *zone
	base *model.Snapshot
	odd  map[model.ServiceName]records // see Table
}

// State returns the present state, nil before there is a complete one. It is cheap.
func (t *Table) State() *State {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.base.Complete {
		return nil
	}
	return &State{zone: t.zone, base: t.base, odd: maps.Clone(t.odd)}
}

// Append appends what is new since an older state of the same table, in the form that Restore reads, and nothing when
// nothing is. With nil it appends everything. It costs what has changed in between; when options, or the zone of the
// node, did, it goes over all Services.
func (s *State) Append(b []byte, since *State) []byte {
	was := since
	if was == nil {
		was = &State{zone: s.zone, base: model.Empty().On(s.base.Node)}
	}
	start := len(b)
	b = appendText(appendText(b, savedForm), s.zone.domain)
	b = binary.AppendUvarint(b, s.base.Revision)
	head := len(b)
	diff := model.Diff(was.base, s.base)
	for _, ns := range diff.Namespaces {
		b = append(appendText(b, ns), byte(existence(s.base.HasNamespace(ns))))
	}
	names := len(b)
	b = appendText(b, "")
	services := len(b)
	for _, name := range s.suspects(was, diff.Services) {
		if now := s.records(name); !now.equal(was.records(name)) {
			b = s.zone.appendRecords(b, name, now)
		}
	}
	if since != nil && names == head && len(b) == services {
		return b[:start]
	}
	return appendText(b, "")
}

// suspects are the Services that may have other records than they had.
func (s *State) suspects(was *State, changes []model.ServiceChange) []model.ServiceName {
	names := make([]model.ServiceName, 0, len(changes)+len(s.odd)+len(was.odd))
	for _, c := range changes {
		names = append(names, c.Name)
	}
	names = slices.AppendSeq(slices.AppendSeq(names, maps.Keys(s.odd)), maps.Keys(was.odd))
	if s.zone != was.zone || placeOf(s.base.Node) != placeOf(was.base.Node) {
		for svc := range s.base.Services() {
			names = append(names, svc.Name)
		}
	}
	slices.SortFunc(names, model.ServiceName.Compare)
	return slices.Compact(names)
}

func (s *State) records(name model.ServiceName) records {
	if r, ok := s.odd[name]; ok {
		return r
	}
	return s.zone.recordsOf(s.base.Service(name), s.base.Node)
}

// appendRecords writes the records of one Service, maybe none. Its names, and those that they point to, end with its
// own, which is left out.
func (z *zone) appendRecords(b []byte, name model.ServiceName, r records) []byte {
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
