//go:build linux

package kubelet

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// watchPods gives every pod of the node a worker until ctx ends, and one to every pod that the runtime has and the
// API has not.
func (k *Kubelet) watchPods(ctx context.Context) {
	pods := k.cfg.Client.CoreV1().Pods(v1.NamespaceAll)
	selector := fields.OneTermEqualSelector("spec.nodeName", k.cfg.NodeName).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return pods.Watch(ctx, o)
		},
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(source, k.cfg.Client), ObjectType: &v1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { k.show(ctx, o.(*v1.Pod)) },
			UpdateFunc: func(old, o any) {
				if was, is := old.(*v1.Pod), o.(*v1.Pod); was.UID != is.UID { // deleted and made again unseen
					k.gone(was)
				}
				k.show(ctx, o.(*v1.Pod))
			},
			DeleteFunc: func(o any) {
				if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				k.gone(o.(*v1.Pod))
			},
		},
	})
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		close(k.statics.synced)
		select {
		case <-k.statics.read: // by now static pods are known
			k.adoptOrphans(ctx)
		case <-ctx.Done():
		}
	}
	<-done
}

// show takes up a pod as the API has it.
func (k *Kubelet) show(ctx context.Context, pod *v1.Pod) {
	if isMirror(pod) {
		k.statics.mirrored(pod)
		return
	}
	k.update(ctx, pod)
}

// update gives a pod to its worker, which it makes.
func (k *Kubelet) update(ctx context.Context, pod *v1.Pod) {
	k.worker(ctx, identify(pod)).update(pod)
}

// gone tells a pod's worker, if there is one, that the API has the pod no longer.
func (k *Kubelet) gone(pod *v1.Pod) {
	if isMirror(pod) {
		k.statics.unmirrored(pod)
		return
	}
	k.mu.Lock()
	w := k.workers[pod.UID]
	k.mu.Unlock()
	if w != nil {
		w.update(nil)
	}
}

// worker is the pod's, made and started if there is none. It vanishes when it has done its work.
func (k *Kubelet) worker(ctx context.Context, id identity) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[id.uid]; w != nil {
		return w
	}
	w := newWorker(k, id)
	k.workers[id.uid] = w
	k.working.Go(func() {
		w.run(ctx)
		k.mu.Lock()
		delete(k.workers, id.uid)
		k.mu.Unlock()
		k.statics.poke() // one of its name may begin now
	})
	return w
}

// adoptOrphans finds what an earlier life of this program has left of pods that the API no longer has.
func (k *Kubelet) adoptOrphans(ctx context.Context) {
	filter := &cri.PodSandboxFilter{LabelSelector: map[string]string{labelNode: k.cfg.NodeName}}
	sandboxes, err := k.cfg.Runtime.ListPodSandbox(ctx, filter)
	for ; err != nil && ctx.Err() == nil; sandboxes, err = k.cfg.Runtime.ListPodSandbox(ctx, filter) {
		k.cfg.Log.Warn("looking for pods without an object", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	for _, s := range sandboxes {
		k.orphan(ctx, identity{
			namespace: s.Labels[kubelettypes.KubernetesPodNamespaceLabel], name: s.Labels[kubelettypes.KubernetesPodNameLabel],
			uid: types.UID(s.Labels[kubelettypes.KubernetesPodUIDLabel]),
		})
	}
	for _, log := range k.folders(k.cfg.PodLogsDir) { // the last that remove takes away
		if part := strings.Split(log, "_"); len(part) == 3 {
			k.orphan(ctx, identity{namespace: part[0], name: part[1], uid: types.UID(part[2])})
		}
	}
	for _, uid := range k.folders(k.volumes.Dir) {
		k.orphan(ctx, identity{uid: types.UID(uid)})
	}
}

// folders are the names of a folder's entries, none where there is no such folder.
func (k *Kubelet) folders(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		k.cfg.Log.Warn("looking for what is left of pods without an object", "err", err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// orphan has a worker remove a pod, unless it has one.
func (k *Kubelet) orphan(ctx context.Context, id identity) {
	k.mu.Lock()
	known := k.workers[id.uid] != nil
	k.mu.Unlock()
	if !known {
		k.cfg.Log.Info("removing a pod that the API does not have", "pod", id.namespace+"/"+id.name, "uid", id.uid)
		k.worker(ctx, id).update(nil)
	}
}

// Pod is the newest specification of a pod with a worker, for the server.
func (k *Kubelet) Pod(namespace, name string) (*v1.Pod, bool) {
	for _, pod := range k.Pods() {
		if pod.Namespace == namespace && pod.Name == name {
			return pod, true
		}
	}
	return nil, false
}

// allWorkers are those of now, for who needs the lock of each.
func (k *Kubelet) allWorkers() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.workers))
}

// Pods are the newest specifications of all pods with a worker.
func (k *Kubelet) Pods() []*v1.Pod {
	var pods []*v1.Pod
	for _, w := range k.allWorkers() {
		w.mu.Lock()
		if w.newest != nil {
			pods = append(pods, w.newest)
		}
		w.mu.Unlock()
	}
	return pods
}
