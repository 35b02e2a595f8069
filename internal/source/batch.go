package source

import (
	"minato/internal/model"
)

// Batch is the view of a Builder's objects that an edit changes. Objects given to it belong to the Builder from then
// on. Setting an object to what it was before changes nothing, so heartbeats and annotations make no revision.
type Batch struct{ w *world }

// SetService puts a Service in the place of the one of its name.
func (b *Batch) SetService(o *ServiceObject) {
	b.w.policy.restrict(o)
	r := b.w.record(o.Name)
	if r.object != nil && r.object.equal(o) {
		return
	}
	if r.object != nil {
		b.w.claims.remove(r)
	}
	r.object = o
	b.w.claims.add(r)
	b.w.dirty[r] = struct{}{}
}

// DeleteService removes a Service. Its slices stay known, in case it comes again.
func (b *Batch) DeleteService(n model.ServiceName) {
	r := b.w.services[n]
	if r == nil || r.object == nil {
		return
	}
	b.w.claims.remove(r)
	r.object, r.frontends = nil, nil
	b.w.dirty[r] = struct{}{}
}

// ReplaceServices makes all the complete list of Services.
func (b *Batch) ReplaceServices(all []*ServiceObject) {
	b.w.missing &^= kindService
	keep := make(map[model.ServiceName]bool, len(all))
	for _, o := range all {
		keep[o.Name] = true
		b.SetService(o)
	}
	for n := range b.w.services {
		if !keep[n] {
			b.DeleteService(n)
		}
	}
}

// SetSlice puts an EndpointSlice in the place of the one of its name.
func (b *Batch) SetSlice(o *SliceObject) {
	n := o.name()
	old := b.w.slices[n]
	if old != nil && old.equal(o) {
		return
	}
	if old != nil && old.Service != o.Service {
		b.DeleteSlice(n)
	}
	b.w.names.share(o.Slice)
	b.w.slices[n] = o
	r := b.w.record(o.Service)
	r.setSlice(o)
	b.touch(r)
}

// DeleteSlice removes an EndpointSlice.
func (b *Batch) DeleteSlice(n ObjectName) {
	old := b.w.slices[n]
	if old == nil {
		return
	}
	delete(b.w.slices, n)
	r := b.w.services[old.Service]
	r.deleteSlice(n.Name)
	b.touch(r)
	b.w.drop(r)
}

// touch marks the Service of a slice that changed, if there is one.
func (b *Batch) touch(r *record) {
	if r.object != nil {
		b.w.dirty[r] = struct{}{}
	}
}

// ReplaceSlices makes all the complete list of EndpointSlices.
func (b *Batch) ReplaceSlices(all []*SliceObject) {
	b.w.missing &^= kindSlice
	keep := make(map[ObjectName]bool, len(all))
	for _, o := range all {
		keep[o.name()] = true
		b.SetSlice(o)
	}
	for n := range b.w.slices {
		if !keep[n] {
			b.DeleteSlice(n)
		}
	}
}

// SetNode puts a node in the place of the one of its name.
func (b *Batch) SetNode(n *model.Node) {
	n.NodePorts = b.w.policy.NodePorts
	if old := b.w.nodes[n.Name]; old != nil && sameNode(old, n) {
		return
	}
	b.w.nodes[n.Name] = n
	b.w.dirtyNodes[n.Name] = struct{}{}
}

// DeleteNode removes a node.
func (b *Batch) DeleteNode(name string) {
	if b.w.nodes[name] == nil {
		return
	}
	delete(b.w.nodes, name)
	b.w.dirtyNodes[name] = struct{}{}
}

// ReplaceNodes makes all the complete list of nodes.
func (b *Batch) ReplaceNodes(all []*model.Node) {
	b.w.missing &^= kindNode
	keep := make(map[string]bool, len(all))
	for _, n := range all {
		keep[n.Name] = true
		b.SetNode(n)
	}
	for name := range b.w.nodes {
		if !keep[name] {
			b.DeleteNode(name)
		}
	}
}

// SetNamespace records that a namespace exists, also while it terminates.
func (b *Batch) SetNamespace(name string) {
	if _, ok := b.w.namespaces[name]; ok {
		return
	}
	b.w.namespaces[name] = struct{}{}
	b.w.dirtyNamespaces[name] = struct{}{}
}

// DeleteNamespace records that a namespace is gone.
func (b *Batch) DeleteNamespace(name string) {
	if _, ok := b.w.namespaces[name]; !ok {
		return
	}
	delete(b.w.namespaces, name)
	b.w.dirtyNamespaces[name] = struct{}{}
}

// ReplaceNamespaces makes all the complete list of namespaces.
func (b *Batch) ReplaceNamespaces(all []string) {
	b.w.missing &^= kindNamespace
	keep := make(map[string]bool, len(all))
	for _, name := range all {
		keep[name] = true
		b.SetNamespace(name)
	}
	for name := range b.w.namespaces {
		if !keep[name] {
			b.DeleteNamespace(name)
		}
	}
}
