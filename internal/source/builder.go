// Package source makes model.Snapshots from Kubernetes API objects.
//
// Builder is the single writer: it is told of objects, already converted by the pure functions Service, Slice and
// Node, joins EndpointSlices to their Services, settles conflicts between Services, and publishes a new snapshot
// for every batch that changed something. The work is proportional to the change: an unchanged Service stays the
// same pointer, and an unchanged EndpointSlice is shared. API objects are not kept.
//
// It does no I/O: package source/kube lists and watches, package source/file reads files. It does not decide which
// backends are used (model.Select does) and it writes nothing back to the API.
package source

import (
	"context"
	"sync"
	"sync/atomic"

	"minato/internal/model"
)

// ObjectName is the namespace and name of an API object.
type ObjectName struct{ Namespace, Name string }

// kind is one bit for each kind of object that has to be read once before a snapshot may be shown.
type kind uint8

const (
	kindService kind = 1 << iota
	kindSlice
	kindNode
	kindNamespace
	allKinds = kindService | kindSlice | kindNode | kindNamespace
)

// Builder gathers objects and publishes snapshots. It is safe for concurrent use. NewBuilder makes one.
type Builder struct {
	current  atomic.Pointer[model.Snapshot]
	complete chan struct{} // closed with the first complete snapshot

	mu          sync.Mutex // guards all below
	world       world
	subscribers map[chan struct{}]struct{}
}

// NewBuilder makes a Builder that knows nothing.
func NewBuilder() *Builder {
	b := &Builder{
		complete:    make(chan struct{}),
		world:       newWorld(),
		subscribers: map[chan struct{}]struct{}{},
	}
	b.current.Store(model.Empty())
	return b
}

// Update applies one batch: however many objects edit changes, at most one new revision comes of it. The Batch must
// not be kept after edit returns.
func (b *Builder) Update(edit func(*Batch)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	edit(&Batch{&b.world})
	first := !b.current.Load().Complete
	if changed := b.world.changed(); b.world.missing != 0 || !first && !changed {
		return
	}
	b.current.Store(b.current.Load().With(b.world.commit))
	if first {
		close(b.complete)
	}
	for c := range b.subscribers {
		notify(c)
	}
}

// Current is the newest snapshot. It is empty and not Complete until every kind of object was read once.
func (b *Builder) Current() *model.Snapshot { return b.current.Load() }

// WaitComplete waits for the first complete snapshot, or for ctx to end.
func (b *Builder) WaitComplete(ctx context.Context) error {
	select {
	case <-b.complete:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Subscribe gives a channel that holds one value whenever Current has changed since the last receive. A slow reader
// misses revisions, never the newest, and holds up nobody. The channel is never closed; cancel ends the subscription.
func (b *Builder) Subscribe() (changed <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribers[c] = struct{}{}
	if b.current.Load().Complete {
		notify(c)
	}
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, c)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
