//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"minato/internal/cluster/kubelet/volumes"
)

// followObjects has the volumes of pods follow their ConfigMaps and Secrets, until ctx ends.
func (k *Kubelet) followObjects(ctx context.Context) error {
	for kind, informer := range map[volumes.Kind]cache.SharedIndexInformer{
		volumes.ConfigMap: k.cfg.ConfigMaps, volumes.Secret: k.cfg.Secrets,
	} {
		if informer == nil {
			continue
		}
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { k.changed(kind, o) },
			UpdateFunc: func(old, o any) {
				if resourceVersion(old) != resourceVersion(o) { // not a mere repetition
					k.changed(kind, o)
				}
			},
			DeleteFunc: func(o any) {
				if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				k.changed(kind, o)
			},
		})
		if err != nil {
			return fmt.Errorf("following objects of kind %s: %w", kind, err)
		}
		defer informer.RemoveEventHandler(registration)
	}
	<-ctx.Done()
	return nil
}

func resourceVersion(o any) string {
	if object, err := meta.Accessor(o); err == nil {
		return object.GetResourceVersion()
	}
	return ""
}

// changed wakes the workers whose volumes show an object.
func (k *Kubelet) changed(kind volumes.Kind, o any) {
	object, err := meta.Accessor(o)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if w.shows(kind, object.GetNamespace(), object.GetName()) {
			w.poke()
		}
	}
}

// shows reports whether a volume of the pod comes from an object, and has the volumes brought up to date if so.
func (w *worker) shows(kind volumes.Kind, namespace, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.newest == nil || w.newest.Namespace != namespace || !volumes.Uses(w.newest, kind, name) {
		return false
	}
	w.stale = true
	return true
}

func sameMetadata(a, b *v1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

// takeStale reports whether an object behind the volumes has changed since it was last asked, or the pod's own
// labels and annotations have.
func (w *worker) takeStale(shown *v1.Pod) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := w.stale
	w.stale = false
	return stale || shown == nil || !sameMetadata(shown, w.pod)
}
