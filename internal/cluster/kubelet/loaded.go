//go:build linux

package kubelet

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"

	"minato/internal/cluster/images"
)

// ImagesLoaded has containers that wait for one of these images (full names) started at once: who has just loaded it
// is not to wait for the end of a back-off of up to five minutes. It is safe for concurrent use.
func (k *Kubelet) ImagesLoaded(refs []string) {
	for _, w := range k.allWorkers() {
		w.offer(refs)
	}
}

func (w *worker) offer(refs []string) {
	w.mu.Lock()
	wanted := w.newest != nil && !podutil.VisitContainers(&w.newest.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		return !contains(refs, c.Image)
	})
	if wanted {
		w.loaded = append(w.loaded, refs...)
	}
	w.mu.Unlock()
	if wanted {
		w.poke()
	}
}

// takeLoaded ends the back-off of containers whose image was loaded since it was last asked.
func (w *worker) takeLoaded() {
	w.mu.Lock()
	loaded := w.loaded
	w.loaded = nil
	w.mu.Unlock()
	if len(loaded) == 0 {
		return
	}
	for name, why := range w.waiting {
		c := kubecontainer.GetContainerSpec(w.pod, name)
		if c == nil || !contains(loaded, c.Image) || why.reason != reasonErrImagePull && why.reason != reasonImagePullBackOff {
			continue
		}
		w.k.puller.forget(pullKey(w.pod, c))
		why.until = time.Time{}
		w.waiting[name] = why
	}
}

// contains reports whether an image as a container names it is one of refs.
func contains(refs []string, image string) bool {
	full, err := images.FullName(image)
	return err == nil && slices.Contains(refs, full)
}
