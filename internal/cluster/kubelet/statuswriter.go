//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// statusWriter writes the newest status of each pod to the API, one after the other, and tries again while the API
// is away. Statuses that a newer one has overtaken are never written.
type statusWriter struct {
	client kubernetes.Interface
	log    *slog.Logger

	mu    sync.Mutex
	pods  map[types.UID]*written
	queue []types.UID // with something to write, each at most once
	wake  chan struct{}
}

// written is a pod's status on its way to the API.
type written struct {
	id      identity
	object  types.UID // as the API has the pod; empty where it has none
	wanted  v1.PodStatus
	api     v1.PodStatus // the API's, as of version
	version uint64       // of the pod: that of our last write, or a newer one that the watch has shown
	queued  bool
	waiters []chan struct{} // closed when wanted is written or the pod is gone
}

func newStatusWriter(client kubernetes.Interface, log *slog.Logger) *statusWriter {
	return &statusWriter{client: client, log: log, pods: make(map[types.UID]*written), wake: make(chan struct{}, 1)}
}

// set makes s the status to write for a pod, which the API has with the UID object; for one that it does not have it is
// kept. Conditions of others are kept as the API has them.
func (w *statusWriter) set(pod *v1.Pod, object types.UID, s v1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pods[pod.UID]
	if p == nil {
		p = &written{id: identify(pod), api: *pod.Status.DeepCopy(), version: versionOf(pod)}
		w.pods[pod.UID] = p
	}
	if v := versionOf(pod); v > p.version || object != p.object { // somebody else has written, as the controller of Nodes does
		p.api, p.version = *pod.Status.DeepCopy(), v
	}
	// The others' conditions are the newest the watch has shown, on both sides: the patch then leaves them alone.
	p.api.Conditions = append(kept(p.api.Conditions, true), kept(pod.Status.Conditions, false)...)
	p.wanted, p.object = s, object
	if p.queued || p.object == "" || apiequality.Semantic.DeepEqual(p.api, p.wanted) {
		return
	}
	p.queued = true
	w.queue = append(w.queue, pod.UID)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// versionOf is the pod's resource version, which the API's store counts up; 0 where there is none.
func versionOf(pod *v1.Pod) uint64 {
	v, err := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// kept are the conditions that are the kubelet's, or that are not.
func kept(conditions []v1.PodCondition, own bool) []v1.PodCondition {
	var list []v1.PodCondition
	for _, c := range conditions {
		if kubetypes.PodConditionByKubelet(c.Type) == own {
			list = append(list, c)
		}
	}
	return list
}

// flush waits until what was last set for a pod is written, or the pod is gone.
func (w *statusWriter) flush(ctx context.Context, uid types.UID) error {
	w.mu.Lock()
	p := w.pods[uid]
	if p == nil || !p.queued {
		w.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	p.waiters = append(p.waiters, done)
	w.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget drops a pod that is gone.
func (w *statusWriter) forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pods[uid]; p != nil {
		p.release()
		delete(w.pods, uid)
	}
}

func (p *written) release() {
	for _, waiter := range p.waiters {
		close(waiter)
	}
	p.waiters = nil
}

// run writes until ctx ends.
func (w *statusWriter) run(ctx context.Context) {
	for {
		uid, ok := w.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			continue
		}
		if err := w.write(ctx, uid); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.log.Warn("writing a pod's status", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

func (w *statusWriter) next() (types.UID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		uid := w.queue[0]
		w.queue = w.queue[1:]
		if w.pods[uid] != nil {
			return uid, true
		}
	}
	return "", false
}

// write patches one pod. After an error the pod is queued again.
func (w *statusWriter) write(ctx context.Context, uid types.UID) error {
	w.mu.Lock()
	p := w.pods[uid]
	if p == nil {
		w.mu.Unlock()
		return nil
	}
	id, object, from, to := p.id, p.object, p.api, p.wanted
	w.mu.Unlock()

	answer, err := w.patch(ctx, id, object, from, to)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or another pod has the name
		p.queued = false
		p.release()
		return nil
	case err != nil:
		w.queue = append(w.queue, uid)
		return err
	}
	p.api, p.version = answer.Status, versionOf(answer)
	if !apiequality.Semantic.DeepEqual(to, p.wanted) { // set again meanwhile
		w.queue = append(w.queue, uid)
		return nil
	}
	p.queued = false
	p.release()
	return nil
}

// patch sends the difference alone, so that what others write stays. The UID makes it fail for another pod of the
// same name.
func (w *statusWriter) patch(ctx context.Context, id identity, object types.UID, from, to v1.PodStatus) (*v1.Pod, error) {
	before, err := json.Marshal(v1.Pod{Status: from})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: object}, Status: to})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, err
	}
	pod, err := w.client.CoreV1().Pods(id.namespace).Patch(ctx, id.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("patching the status of pod %s/%s: %w", id.namespace, id.name, err)
	}
	return pod, nil
}
