//go:build linux

package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
)

// grant is what the node has promised a pod, and what its containers have of it by now. Both differ from the
// specification while a resize (the subresource resize) is under way or cannot be. It is kept in the pod's folder, from
// the first resize on; of a pod with resources of its own from the start, because its containers do not tell those.
// Once made, the promise is not changed but replaced.
type grant struct {
	Pod        *v1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]v1.ResourceRequirements `json:"containers"`
	Applied    map[string]v1.ResourceRequirements `json:"applied,omitempty"` // by id, of containers that were changed while they ran
}

// resizable are the containers whose resources may change.
func resizable(pod *v1.Pod) (all []*v1.Container) {
	for c, kind := range podutil.ContainerIter(&pod.Spec, podutil.InitContainers|podutil.Containers) {
		if kind == podutil.Containers || podutil.IsRestartableInitContainer(c) {
			all = append(all, c)
		}
	}
	return all
}

// granted is the promise of what a specification asks for.
func granted(pod *v1.Pod, applied map[string]v1.ResourceRequirements) *grant {
	g := &grant{Pod: pod.Spec.Resources.DeepCopy(), Containers: make(map[string]v1.ResourceRequirements), Applied: applied}
	for _, c := range resizable(pod) {
		g.Containers[c.Name] = *c.Resources.DeepCopy()
	}
	return g
}

// on is the pod with what was promised in the place of what it asks for; the same pod where that is equal.
func (g *grant) on(pod *v1.Pod) *v1.Pod {
	if g == nil {
		return pod
	}
	result := pod
	change := func() {
		if result == pod {
			result = pod.DeepCopy()
		}
	}
	if !apiequality.Semantic.DeepEqual(pod.Spec.Resources, g.Pod) {
		change()
		result.Spec.Resources = g.Pod.DeepCopy()
	}
	for _, c := range resizable(pod) {
		if promised, ok := g.Containers[c.Name]; ok && !apiequality.Semantic.DeepEqual(c.Resources, promised) {
			change()
			kubecontainer.GetContainerSpec(result, c.Name).Resources = *promised.DeepCopy()
		}
	}
	return result
}

func (k *Kubelet) grantFile(id identity) string {
	return filepath.Join(k.volumes.PodDir(id.uid), "resources.json")
}

// loadGrant reads what an earlier life has promised.
func (w *worker) loadGrant(runtime *kubecontainer.PodStatus) error {
	data, err := os.ReadFile(w.k.grantFile(w.id))
	if errors.Is(err, fs.ErrNotExist) {
		return w.firstGrant(runtime)
	}
	g := new(grant)
	if err == nil {
		err = json.Unmarshal(data, g)
	}
	if err != nil {
		return fmt.Errorf("reading what the pod was granted: %w", err)
	}
	w.setGrant(g)
	return nil
}

// firstGrant is the promise where none was written. Containers that run tell it: the pod was never resized, or asked for
// it while nobody was here. So its cgroup has what was promised, and the pod had no resources of its own.
func (w *worker) firstGrant(runtime *kubecontainer.PodStatus) error {
	g := granted(w.newestPod(), nil)
	for _, s := range runtime.ActiveContainerStatuses {
		if _, ok := g.Containers[s.Name]; ok && s.State == kubecontainer.ContainerStateRunning && s.Resources != nil {
			g.Containers[s.Name] = madeRequirements(s.Resources, g.Containers[s.Name])
			g.Pod = nil
		}
	}
	if g.Pod != nil {
		return w.saveGrant(g)
	}
	w.setGrant(g)
	w.given = podResources(w.pod)
	return nil
}

// saveGrant makes a grant the pod's, for later lives too.
func (w *worker) saveGrant(g *grant) error {
	data, err := json.Marshal(g)
	if err != nil {
		return err
	}
	file := w.k.grantFile(w.id)
	err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file+".new", data, 0o600))
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("noting what the pod is granted: %w", err)
	}
	w.setGrant(g)
	return nil
}

func (w *worker) setGrant(g *grant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grant = g
	w.pod = g.on(w.newest)
}

func (w *worker) newestPod() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest
}

// applied notes what a running container has by now.
func (w *worker) applied(id string, r v1.ResourceRequirements) error {
	g := *w.grant
	if g.Applied = maps.Clone(g.Applied); g.Applied == nil {
		g.Applied = make(map[string]v1.ResourceRequirements)
	}
	g.Applied[id] = *r.DeepCopy()
	return w.saveGrant(&g)
}

// noteApplied puts what containers have by now in the place of what they were made with.
func (w *worker) noteApplied(runtime *kubecontainer.PodStatus) {
	if w.grant == nil {
		return
	}
	for _, s := range runtime.ContainerStatuses {
		if r, ok := w.grant.Applied[s.ID.ID]; ok {
			s.Resources = quantities(r)
		}
	}
}
