package source

import (
	"slices"
	"strings"

	"minato/internal/model"
)

// world is every object that is known, and which of them the newest snapshot does not have yet.
type world struct {
	missing    kind // not read once yet
	services   map[model.ServiceName]*record
	slices     map[ObjectName]*SliceObject
	nodes      map[string]*model.Node
	namespaces map[string]struct{}
	claims     claims
	ingresses  ingresses
	balancing  balancing
	policy     Policy
	dns        dnsConfig
	names      interner

	dirty           map[*record]struct{}
	dirtyNodes      map[string]struct{}
	dirtyNamespaces map[string]struct{}
	dirtyBalancing  bool
}

// record is what is known under one Service's name. Slices may come before their Service and outlive it.
type record struct {
	name      model.ServiceName
	object    *ServiceObject   // nil while there is none
	frontends []model.Frontend // those of the object that no older Service holds
	slices    []*SliceObject   // sorted by name
}

func newWorld() world {
	return world{
		missing:         allKinds,
		services:        map[model.ServiceName]*record{},
		slices:          map[ObjectName]*SliceObject{},
		nodes:           map[string]*model.Node{},
		namespaces:      map[string]struct{}{},
		claims:          newClaims(),
		ingresses:       newIngresses(),
		balancing:       balancing{rivals: map[ObjectName]bool{}},
		dns:             dnsConfig{maps: map[string]*DNSConfigMap{}},
		names:           interner{},
		dirty:           map[*record]struct{}{},
		dirtyNodes:      map[string]struct{}{},
		dirtyNamespaces: map[string]struct{}{},
	}
}

func (w *world) record(n model.ServiceName) *record {
	r := w.services[n]
	if r == nil {
		r = &record{name: n}
		w.services[n] = r
	}
	return r
}

// drop forgets a record of which nothing is known any more. One that is dirty has to wait for commit: its name may
// come again in the same batch.
func (w *world) drop(r *record) {
	if _, dirty := w.dirty[r]; !dirty && r.object == nil && len(r.slices) == 0 {
		delete(w.services, r.name)
	}
}

// changed reports whether a snapshot made now would differ from the last one.
func (w *world) changed() bool {
	w.dirtyBalancing = w.balancing.changed() || w.dirtyBalancing
	return w.dirtyBalancing || w.dns.changed() || w.ingresses.changed() || len(w.dirty)+len(w.dirtyNodes)+len(w.dirtyNamespaces)+len(w.claims.touched) > 0
}

// commit writes what is dirty into the next snapshot.
func (w *world) commit(e *model.Edit) {
	e.SetComplete()
	for r := range w.claims.touched {
		if r.object != nil {
			r.frontends = w.claims.held(r)
			w.dirty[r] = struct{}{}
		}
	}
	if w.claims.contested {
		e.SetConflicts(w.claims.conflicts())
	}
	w.claims.settled()
	for r := range w.dirty {
		delete(w.dirty, r)
		if r.object != nil {
			e.SetService(r.service())
		} else {
			e.DeleteService(r.name)
			w.drop(r)
		}
	}
	w.dirty = emptied(w.dirty)
	for name := range w.dirtyNodes {
		if n := w.nodes[name]; n != nil {
			e.SetNode(n)
		} else {
			e.DeleteNode(name)
		}
	}
	for name := range w.dirtyNamespaces {
		_, exists := w.namespaces[name]
		e.SetNamespace(name, exists)
	}
	w.ingresses.commit(e)
	w.dns.commit(e)
	if w.dirtyBalancing {
		e.SetLoadBalancing(w.balancing.shown)
		w.dirtyBalancing = false
	}
	w.dirtyNodes, w.dirtyNamespaces = emptied(w.dirtyNodes), emptied(w.dirtyNamespaces)
}

// emptied is a map to go on with. To go through one, or to clear it, costs what it has ever held: after everything was
// read, each change would cost that.
func emptied[K comparable](map[K]struct{}) map[K]struct{} { return map[K]struct{}{} }

// service is the record as the model has it. EndpointSlices that a headless Service's controller made do not feed a
// proxied Service (label service.kubernetes.io/headless), as with kube-proxy.
func (r *record) service() *model.Service {
	svc := r.object.Service
	svc.Frontends = r.frontends
	svc.Slices = make([]*model.BackendSlice, 0, len(r.slices))
	for _, s := range r.slices {
		if s.Headless && svc.Proxied {
			continue
		}
		svc.Slices = append(svc.Slices, s.Slice)
		if len(s.Warnings) > 0 {
			svc.Warnings = append(slices.Clip(svc.Warnings), s.Warnings...)
		}
	}
	return &svc
}

func (r *record) setSlice(s *SliceObject) {
	i, found := r.findSlice(s.Slice.Name)
	if found {
		r.slices[i] = s
	} else {
		r.slices = slices.Insert(r.slices, i, s)
	}
}

func (r *record) deleteSlice(name string) {
	if i, found := r.findSlice(name); found {
		r.slices = slices.Delete(r.slices, i, i+1)
	}
}

func (r *record) findSlice(name string) (int, bool) {
	return slices.BinarySearchFunc(r.slices, name, func(s *SliceObject, name string) int {
		return strings.Compare(s.Slice.Name, name)
	})
}
