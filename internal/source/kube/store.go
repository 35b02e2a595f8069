package kube

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"minato/internal/source"
)

// store is a cache.ReflectorStore that stores nothing: every object is converted on arrival and queued as an edit.
// O is the API type, T what source makes of it.
type store[O metav1.Object, T any] struct {
	queue   *queue
	convert func(O) (T, bool)
	set     func(*source.Batch, T)
	replace func(*source.Batch, []T)
	delete  func(*source.Batch, source.ObjectName)
}

// converted is an object of a streamed initial list, as Transformer left it.
type converted[T any] struct {
	value T
	ok    bool
}

func (s *store[O, T]) Add(obj any) error { return s.Update(obj) }

func (s *store[O, T]) Update(obj any) error {
	o, ok := obj.(O)
	if !ok {
		return fmt.Errorf("watch gave a %T", obj)
	}
	n := source.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}
	if v, ok := s.convert(o); ok {
		s.queue.push(func(b *source.Batch) { s.set(b, v) })
	} else {
		s.queue.push(func(b *source.Batch) { s.delete(b, n) })
	}
	return nil
}

func (s *store[O, T]) Delete(obj any) error {
	o, ok := obj.(O)
	if !ok {
		return fmt.Errorf("watch gave a %T", obj)
	}
	n := source.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}
	s.queue.push(func(b *source.Batch) { s.delete(b, n) })
	return nil
}

// Replace takes a whole list: of API objects, or of those that Transformer has seen.
func (s *store[O, T]) Replace(list []any, _ string) error {
	all := make([]T, 0, len(list))
	for _, obj := range list {
		if o, ok := obj.(O); ok {
			obj = s.transform(o)
		}
		c, ok := obj.(converted[T])
		if !ok {
			return fmt.Errorf("list gave a %T", obj)
		}
		if c.ok {
			all = append(all, c.value)
		}
	}
	s.queue.push(func(b *source.Batch) { s.replace(b, all) })
	return nil
}

func (s *store[O, T]) Resync() error { return nil }

// Transformer makes a Reflector convert the objects of a streamed list one by one, so that they are never all in
// memory.
func (s *store[O, T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, ok := obj.(O)
		if !ok {
			return nil, fmt.Errorf("watch gave a %T", obj)
		}
		return s.transform(o), nil
	}
}

func (s *store[O, T]) transform(o O) converted[T] {
	v, ok := s.convert(o)
	return converted[T]{v, ok}
}

// queue gathers edits so that those which come while a batch is made are the next batch.
type queue struct {
	wake chan struct{}

	mu    sync.Mutex
	edits []func(*source.Batch)
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) push(edit func(*source.Batch)) {
	q.mu.Lock()
	q.edits = append(q.edits, edit)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) drain() []func(*source.Batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	edits := q.edits
	q.edits = nil
	return edits
}

// feed hands what is queued to b, in order, until ctx ends.
func (q *queue) feed(ctx context.Context, b *source.Builder) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		edits := q.drain()
		b.Update(func(batch *source.Batch) {
			for _, edit := range edits {
				edit(batch)
			}
		})
	}
}
