//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"

	"minato/internal/cluster/kubelet/manifests"
)

const (
	manifestPeriod = 20 * time.Second // how often the folder is read where no change is told of, as upstream's
	staticPatience = 5 * time.Second  // how long static pods wait at the start for what the API knows of them
)

// statics are the static pods and what the API shows of them, their mirror pods. A static pod begins when no other of
// its name runs, and ends as if the API had deleted it.
type statics struct {
	wake   chan struct{} // has room for one
	read   chan struct{} // closed when the folder was read, and its pods have workers
	synced chan struct{} // closed when mirrors are all that there are

	mu      sync.Mutex
	mirrors map[types.NamespacedName]*v1.Pod

	// What follows is of the goroutine of watchStatic.
	wanted  map[types.NamespacedName]*v1.Pod // what the folder says
	running map[types.NamespacedName]*v1.Pod // those with a worker
	ending  map[types.UID]bool               // those of running that are to end
	told    map[string]string                // problems, by file
}

func newStatics() *statics {
	return &statics{
		wake: make(chan struct{}, 1), read: make(chan struct{}), synced: make(chan struct{}),
		mirrors: make(map[types.NamespacedName]*v1.Pod), running: make(map[types.NamespacedName]*v1.Pod),
		ending: make(map[types.UID]bool),
	}
}

func (s *statics) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func isMirror(pod *v1.Pod) bool {
	_, ok := pod.Annotations[kubetypes.ConfigMirrorAnnotationKey]
	return ok
}

func isStatic(pod *v1.Pod) bool {
	return pod.Annotations[kubetypes.ConfigSourceAnnotationKey] == kubetypes.FileSource && !isMirror(pod)
}

// mirrors reports whether a mirror pod is that of a static pod.
func mirrors(mirror, pod *v1.Pod) bool {
	return mirror.Annotations[kubetypes.ConfigMirrorAnnotationKey] == string(pod.UID)
}

func nameOf(pod *v1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
}

// mirrored takes up what the API shows of a static pod.
func (s *statics) mirrored(mirror *v1.Pod) {
	s.mu.Lock()
	s.mirrors[nameOf(mirror)] = mirror
	s.mu.Unlock()
	s.poke()
}

// unmirrored takes up that the API shows it no longer.
func (s *statics) unmirrored(mirror *v1.Pod) {
	s.mu.Lock()
	if now := s.mirrors[nameOf(mirror)]; now != nil && now.UID == mirror.UID {
		delete(s.mirrors, nameOf(mirror))
	}
	s.mu.Unlock()
	s.poke()
}

func (s *statics) allMirrors() map[types.NamespacedName]*v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.mirrors)
}

// watchStatic runs the pods of the manifests' folder until ctx ends.
func (k *Kubelet) watchStatic(ctx context.Context) {
	s := k.statics
	if err := os.MkdirAll(k.cfg.ManifestDir, 0o700); err != nil {
		k.cfg.Log.Error("static pods", "err", err)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		if err := manifests.Watch(ctx, k.cfg.ManifestDir, s.poke); err != nil {
			k.cfg.Log.Warn("changes of static pods are found late", "err", err, "within", manifestPeriod)
		}
	})
	select { // an API that does not answer must not keep them from running
	case <-s.synced:
	case <-ctx.Done():
	case <-time.After(staticPatience):
	}
	for begun := false; ctx.Err() == nil; begun = true {
		next := manifestPeriod
		if err := k.syncStatic(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("static pods", "err", err)
			next = time.Second
		}
		if !begun {
			close(s.read)
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-time.After(next):
		}
	}
}

// syncStatic brings workers and mirror pods to what the folder says.
func (k *Kubelet) syncStatic(ctx context.Context) error {
	s := k.statics
	if err := k.readManifests(); err != nil {
		return err
	}
	shown := s.allMirrors()
	for name, pod := range s.running {
		if want := s.wanted[name]; !s.ending[pod.UID] && (want == nil || want.UID != pod.UID) {
			if err := k.endStatic(ctx, pod, shown[name]); err != nil {
				return err
			}
		}
		if s.ending[pod.UID] && !k.works(name) {
			delete(s.running, name)
			delete(s.ending, pod.UID)
		}
	}
	for name, pod := range s.wanted {
		if s.running[name] == nil && !k.works(name) {
			s.running[name] = pod
		}
	}
	for name, pod := range s.running {
		if !s.ending[pod.UID] {
			k.update(ctx, shownBy(pod, shown[name]))
		}
	}
	return k.syncMirrors(ctx, shown)
}

// readManifests reads the folder, and tells of what is wrong in it once.
func (k *Kubelet) readManifests() error {
	s := k.statics
	pods, problems, err := manifests.Read(k.cfg.ManifestDir, k.cfg.NodeName)
	if err != nil {
		return err
	}
	s.wanted = make(map[types.NamespacedName]*v1.Pod, len(pods))
	for _, pod := range pods {
		s.wanted[nameOf(pod)] = pod
	}
	told := make(map[string]string)
	for _, p := range problems {
		told[p.File] = p.Err.Error()
		if s.told[p.File] != told[p.File] {
			k.cfg.Log.Error("a static pod is left out", "file", p.File, "err", p.Err)
			k.recorder.Eventf(k.nodeRef(), v1.EventTypeWarning, "InvalidManifest", "Static pod is left out: %s: %v", p.File, p.Err)
		}
	}
	s.told = told
	return nil
}

// works reports whether a pod of this name has a worker, static or not.
func (k *Kubelet) works(name types.NamespacedName) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if w.id.namespace == name.Namespace && w.id.name == name.Name {
			return true
		}
	}
	return false
}

// shownBy is a static pod with what the API has of it: status and version are its mirror's.
func shownBy(pod, mirror *v1.Pod) *v1.Pod {
	if mirror == nil || !mirrors(mirror, pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Status, pod.ResourceVersion, pod.CreationTimestamp = mirror.Status, mirror.ResourceVersion, mirror.CreationTimestamp
	pod.Generation = mirror.Generation
	return pod
}

// objectUID is the UID that a pod has in the API: a static pod's is its mirror's, empty while there is none.
func (s *statics) objectUID(pod *v1.Pod) types.UID {
	if !isStatic(pod) {
		return pod.UID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mirror := s.mirrors[nameOf(pod)]; mirror != nil && mirrors(mirror, pod) {
		return mirror.UID
	}
	return ""
}

// endStatic has a static pod end with its own grace. Its mirror is deleted first, by which Services turn away.
func (k *Kubelet) endStatic(ctx context.Context, pod, mirror *v1.Pod) error {
	if mirror != nil && mirror.DeletionTimestamp == nil {
		if err := k.deleteMirror(ctx, mirror, pod.Spec.TerminationGracePeriodSeconds); err != nil {
			return err
		}
	}
	k.statics.ending[pod.UID] = true
	now := metav1.Now()
	pod = shownBy(pod, mirror).DeepCopy()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, pod.Spec.TerminationGracePeriodSeconds
	k.update(ctx, pod)
	return nil
}

// syncMirrors makes a mirror pod for every static pod that goes on, and removes those of others.
func (k *Kubelet) syncMirrors(ctx context.Context, shown map[types.NamespacedName]*v1.Pod) error {
	s := k.statics
	for name, mirror := range shown {
		pod := s.running[name]
		switch {
		case pod == nil && k.works(name): // what an earlier life left is being removed
		case pod == nil, !s.ending[pod.UID] && (mirror.DeletionTimestamp != nil || !mirrors(mirror, pod)):
			if err := k.deleteMirror(ctx, mirror, new(int64)); err != nil {
				return err
			}
		}
	}
	node := k.node.Load()
	for name, pod := range s.running {
		if shown[name] == nil && !s.ending[pod.UID] && node != nil {
			if err := k.createMirror(ctx, pod, node); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteMirror deletes this very mirror pod, and no successor of its name.
func (k *Kubelet) deleteMirror(ctx context.Context, mirror *v1.Pod, grace *int64) error {
	err := k.cfg.Client.CoreV1().Pods(mirror.Namespace).Delete(ctx, mirror.Name, metav1.DeleteOptions{
		GracePeriodSeconds: grace, Preconditions: &metav1.Preconditions{UID: &mirror.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the mirror pod %s/%s: %w", mirror.Namespace, mirror.Name, err)
	}
	return nil
}

// createMirror shows a static pod in the API. An error of one does not keep others from it.
func (k *Kubelet) createMirror(ctx context.Context, pod *v1.Pod, node *v1.Node) error {
	mirror := pod.DeepCopy()
	mirror.UID, mirror.Status = "", v1.PodStatus{}
	mirror.Annotations[kubetypes.ConfigMirrorAnnotationKey] = string(pod.UID)
	controller := true
	mirror.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &controller}}
	_, err := k.cfg.Client.CoreV1().Pods(mirror.Namespace).Create(ctx, mirror, metav1.CreateOptions{})
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsNotFound(err): // as where there is no such namespace
		k.cfg.Log.Warn("a static pod does not show in the API", "pod", podFormat(pod), "err", err)
		return nil
	}
	return fmt.Errorf("creating the mirror pod of %s: %w", podFormat(pod), err)
}
