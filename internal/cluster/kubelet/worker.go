//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"

	"minato/internal/cluster/kubelet/volumes"
)

const (
	backOffBase   = 10 * time.Second // of restarts and of pulls
	backOffLimit  = 300 * time.Second
	retryFirst    = 500 * time.Millisecond // after an error of the runtime, the API or a volume
	retryLimit    = 10 * time.Second
	volumesPeriod = 30 * time.Second // how often tokens are looked at, and changes are found that no watch told of
)

// worker owns one pod, from the first sight of it until nothing of it is left. All fields below run belong to its
// goroutine.
type worker struct {
	k    *Kubelet
	id   identity
	wake chan struct{} // has room for one: wakes are not counted

	mu     sync.Mutex
	newest *v1.Pod            // nil where the API has never shown the pod
	gone   bool               // the API has it no longer
	share  bool               // it was admitted to the node: see admitted
	grant  *grant             // what the node has promised; nil before it is known
	excess string             // what it uses too much of: see overuse
	stale  bool               // an object that its volumes show has changed
	loaded []string           // images that were loaded: see takeLoaded
	cut    context.CancelFunc // ends the sync under way, when the pod is to be deleted

	pod      *v1.Pod // what the goroutine works by
	status   v1.PodStatus
	reported bool
	waiting  map[string]waiting
	volumes  map[string]volumes.Volume
	renew    time.Time // of volumes
	shown    *v1.Pod   // whose labels and annotations the volumes show
	retry    time.Duration
	resizing resizing
	given    *v1.ResourceRequirements // what the pod's cgroup has; nil where nobody knows
}

func newWorker(k *Kubelet, id identity) *worker {
	return &worker{k: k, id: id, wake: make(chan struct{}, 1), waiting: make(map[string]waiting)}
}

// update hands in what the API has; nil says that it has the pod no longer.
func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	if pod == nil {
		w.gone = true
	} else {
		w.newest = pod
	}
	if w.cut != nil && (pod == nil || pod.DeletionTimestamp != nil) {
		w.cut()
	}
	w.mu.Unlock()
	w.poke()
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// latest takes the newest specification and reports whether the pod is to end. Until the API has said anything of the
// pod nothing is known, and nothing may be done.
func (w *worker) latest() (known, ending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.newest != nil {
		w.pod = w.grant.on(w.newest)
	}
	return w.pod != nil || w.gone, w.gone || w.pod != nil && w.pod.DeletionTimestamp != nil
}

// run works until the pod is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		var next time.Duration
		var err error
		switch known, ending := w.latest(); {
		case ending:
			if err = w.terminate(ctx); err == nil {
				return
			}
		case known:
			next, err = w.syncCut(ctx)
		}
		if err != nil && ctx.Err() == nil {
			w.k.cfg.Log.Warn("pod", "pod", w.id.namespace+"/"+w.id.name, "err", err)
			w.retry = min(max(2*w.retry, retryFirst), retryLimit)
			next = w.retry
		} else {
			w.retry = 0
		}
		w.sleep(ctx, next)
	}
}

// sleep waits for a wake, and at most for d if d is not 0.
func (w *worker) sleep(ctx context.Context, d time.Duration) {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
	case <-timeout:
	}
}

// syncCut is sync with a context that a deletion of the pod ends.
func (w *worker) syncCut(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.cut = cancel
	if w.gone || w.newest.DeletionTimestamp != nil {
		cancel()
	}
	w.mu.Unlock()
	next, err := w.sync(ctx)
	w.mu.Lock()
	w.cut = nil
	w.mu.Unlock()
	if ctx.Err() != nil {
		w.poke()
		return 0, nil
	}
	return next, err
}

// sync brings the pod nearer to its specification, reports its status, and says when to be called again at the
// latest; 0 is not at all without a wake.
func (w *worker) sync(ctx context.Context) (next time.Duration, err error) {
	runtime, err := w.observe(ctx)
	if err != nil {
		return 0, err
	}
	if ok, err := w.admitted(ctx, runtime); !ok {
		return 0, err
	}
	again, err := w.resize(ctx, runtime)
	if err != nil {
		return 0, err
	}
	w.watch(runtime)
	w.forgetStarted(runtime)
	w.report(runtime, false)
	if why := w.verdict(); why != nil || terminal(w.status.Phase) {
		return 0, w.end(ctx, runtime, why)
	}
	if err := w.mountVolumes(ctx, runtime); err != nil {
		return 0, err
	}
	w.takeLoaded()
	todo := plan(w.pod, runtime, w.k.monitor.State)
	todo.limits = !todo.killPod && w.podResized()
	if wait := time.Until(w.resizing.retry); wait > 0 {
		todo.resize, todo.limits = nil, false
		again = earlier(again, wait)
	}
	next, err = w.do(ctx, runtime, todo)
	if again > 0 {
		next = earlier(next, again)
	}
	if todo.changes() || err != nil {
		after, observeErr := w.observe(context.WithoutCancel(ctx))
		if observeErr != nil {
			return 0, errors.Join(err, observeErr)
		}
		w.prune(ctx, after)
		w.watch(after)
		w.report(after, false)
	}
	return w.soonest(next), err
}

func (a actions) changes() bool {
	return a.killPod || a.createSandbox || a.limits || len(a.kill)+len(a.start)+len(a.resize) > 0
}

// observe reads what the runtime has of the pod, and what its containers have been given since.
func (w *worker) observe(ctx context.Context) (*kubecontainer.PodStatus, error) {
	runtime, err := observe(ctx, w.k.cfg.Runtime, w.id)
	if err == nil {
		w.noteApplied(runtime)
	}
	return runtime, err
}

// soonest adds the worker's own appointments to next.
func (w *worker) soonest(next time.Duration) time.Duration {
	if len(w.volumes) > 0 {
		next = earlier(next, time.Until(w.renew))
	}
	if d := w.deadline(); d > 0 {
		next = earlier(next, time.Until(w.status.StartTime.Add(d)))
	}
	return next
}

// earlier is the smaller of two waits of which 0 is none.
func earlier(a, b time.Duration) time.Duration {
	b = max(b, time.Millisecond)
	if a == 0 || b < a {
		return b
	}
	return a
}

// deadline is activeDeadlineSeconds, 0 for none.
func (w *worker) deadline() time.Duration {
	if w.pod.Spec.ActiveDeadlineSeconds == nil {
		return 0
	}
	return time.Duration(*w.pod.Spec.ActiveDeadlineSeconds) * time.Second
}

// end stops what is left of a pod that has succeeded, failed or outlived its deadline. Its containers stay for
// their logs until the API deletes the pod.
func (w *worker) end(ctx context.Context, runtime *kubecontainer.PodStatus, why *verdict) error {
	if terminal(w.status.Phase) {
		why = nil // it ended before
	}
	if live(runtime) {
		if why != nil {
			w.k.podEvent(w.pod, why.event, why.reason, why.message)
		}
		if err := w.k.killAll(ctx, why.hurried(w.pod), runtime); err != nil {
			return err
		}
		if err := w.k.stopSandboxes(ctx, runtime); err != nil {
			return err
		}
		after, err := w.observe(ctx)
		if err != nil {
			return err
		}
		runtime = after
	}
	w.watch(runtime)
	w.reportEnd(runtime, why)
	return nil
}

// live reports whether a container runs or a sandbox is up.
func live(runtime *kubecontainer.PodStatus) bool {
	for _, s := range runtime.ContainerStatuses {
		if s.State == kubecontainer.ContainerStateRunning || s.State == kubecontainer.ContainerStateUnknown {
			return true
		}
	}
	return ready(runtime)
}

// report computes the status and has it written.
func (w *worker) report(runtime *kubecontainer.PodStatus, stopped bool) {
	r := w.newReport(runtime)
	r.stopped = stopped
	w.setStatus(r.status())
}

// reportEnd is report for a pod that has ended, by itself or by its deadline.
func (w *worker) reportEnd(runtime *kubecontainer.PodStatus, why *verdict) {
	r := w.newReport(runtime)
	r.stopped = true
	r.verdict = why
	w.setStatus(r.status())
}

func (w *worker) newReport(runtime *kubecontainer.PodStatus) report {
	old := w.status
	if !w.reported {
		old = w.pod.Status
	}
	return report{
		pod: w.pod, old: old, runtime: runtime, waiting: w.waiting,
		probes: w.k.monitor.State, hostIPs: w.k.cfg.Addresses, leaving: w.k.leaving.Load(), resizing: w.resizing, given: w.given,
	}
}

func (w *worker) setStatus(s v1.PodStatus) {
	w.status, w.reported = s, true
	w.k.statuses.set(w.pod, w.k.statics.objectUID(w.pod), s)
}

// forgetStarted drops what is told of containers that run by now.
func (w *worker) forgetStarted(runtime *kubecontainer.PodStatus) {
	for name := range w.waiting {
		if s := runtime.FindContainerStatusByName(name); s != nil && s.State == kubecontainer.ContainerStateRunning {
			delete(w.waiting, name)
		}
	}
}

// mountVolumes makes the volumes, and brings them up to date now and then. Once the pod has started an error of
// the API leaves them as they are.
func (w *worker) mountVolumes(ctx context.Context, runtime *kubecontainer.PodStatus) error {
	if stale := w.takeStale(w.shown); w.volumes != nil && !stale && time.Now().Before(w.renew) {
		return nil
	}
	src, err := w.k.sources(ctx, w.pod, runtime.IPs)
	if err != nil {
		return err
	}
	made, err := w.k.volumes.Sync(ctx, w.pod, src)
	if err != nil {
		if ctx.Err() == nil {
			w.k.podEvent(w.pod, v1.EventTypeWarning, events.FailedMountVolume, err.Error())
		}
		if w.volumes == nil {
			return fmt.Errorf("volumes: %w", err)
		}
		w.renew = time.Now().Add(retryFirst)
		return nil
	}
	w.volumes, w.renew, w.shown = made, time.Now().Add(volumesPeriod), w.pod
	return nil
}
