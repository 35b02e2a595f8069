//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"

	"minato/internal/cluster/kubelet/cgroup"
)

// terminate ends the pod: containers within their grace, then the network, then the API object, then what is left on
// disk. It can be repeated after an error, at any point.
func (w *worker) terminate(ctx context.Context) error {
	if w.pod == nil { // the runtime has it, the API has not
		w.pod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.id.namespace, Name: w.id.name, UID: w.id.uid}}
	}
	runtime, err := w.observe(ctx)
	if err != nil {
		return err
	}
	w.watch(runtime)
	w.tell(runtime, false)
	if err := w.stop(ctx, runtime); err != nil {
		return err
	}
	if err := w.k.stopSandboxes(ctx, runtime); err != nil {
		return err
	}
	if runtime, err = w.observe(ctx); err != nil {
		return err
	}
	if live(runtime) { // started while it was stopped
		return errors.New("containers run still")
	}
	w.watch(runtime)
	w.tell(runtime, true)
	if err := w.deleteObject(ctx); err != nil {
		return err
	}
	return w.remove(ctx, runtime)
}

// tell reports the status, as long as there is an object to report it in.
func (w *worker) tell(runtime *kubecontainer.PodStatus, stopped bool) {
	w.mu.Lock()
	gone := w.gone
	w.mu.Unlock()
	if !gone {
		w.report(runtime, stopped)
	}
}

// stop stops the containers. Meanwhile it keeps the status true, and takes up a shorter grace period.
func (w *worker) stop(ctx context.Context, runtime *kubecontainer.PodStatus) error {
	killed := make(chan error, 1)
	var hurries sync.WaitGroup
	defer hurries.Wait()
	pod := w.pod
	go func() { // every way out of the loop waits for it
		w.k.waitWithdrawn(ctx, pod)
		killed <- w.k.killAll(ctx, pod, runtime)
	}()
	for {
		select {
		case err := <-killed:
			return err
		case <-w.wake:
		}
		if seconds, shorter := w.shorter(); shorter {
			for _, s := range runtime.ContainerStatuses {
				hurries.Go(func() { w.k.cfg.Runtime.StopContainer(ctx, s.ID.ID, seconds) }) // killAll has the errors
			}
		}
		if now, err := w.observe(ctx); err == nil {
			w.watch(now)
			w.tell(now, false)
		}
	}
}

// shorter takes the newest specification and reports its grace if it is shorter than before.
func (w *worker) shorter() (seconds int64, ok bool) {
	before := w.pod.DeletionGracePeriodSeconds
	w.latest()
	now := w.pod.DeletionGracePeriodSeconds
	if before == nil || now == nil || *now >= *before {
		return 0, false
	}
	return max(*now, int64(minGrace.Seconds())), true
}

// deleteObject has the last status written and then the pod deleted for good. Another pod of the name is left alone.
func (w *worker) deleteObject(ctx context.Context) error {
	w.mu.Lock()
	gone := w.gone
	w.mu.Unlock()
	if gone || w.pod.DeletionTimestamp == nil { // only who asked for it loses an object
		return nil
	}
	if err := w.k.statuses.flush(ctx, w.id.uid); err != nil {
		return err
	}
	if isStatic(w.pod) {
		return nil // syncMirrors does it
	}
	err := w.k.cfg.Client.CoreV1().Pods(w.id.namespace).Delete(ctx, w.id.name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &w.id.uid},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting the pod: %w", err)
	}
	return nil
}

// remove takes away what is left of a pod without containers that run. It is short, and not cut by the end of ctx.
func (w *worker) remove(ctx context.Context, runtime *kubecontainer.PodStatus) error {
	ctx = context.WithoutCancel(ctx)
	w.k.statuses.forget(w.id.uid)
	for _, s := range runtime.ContainerStatuses {
		w.k.monitor.Forget(s.ID.ID)
		if err := w.k.cfg.Runtime.RemoveContainer(ctx, s.ID.ID); err != nil {
			return fmt.Errorf("removing container %s: %w", s.Name, err)
		}
	}
	for _, s := range runtime.SandboxStatuses {
		if err := w.k.cfg.Runtime.RemovePodSandbox(ctx, s.Id); err != nil {
			return fmt.Errorf("removing the sandbox: %w", err)
		}
	}
	w.k.tokens.forget(w.id.uid)
	if err := errors.Join(w.k.volumes.Remove(w.id.uid), cgroup.Remove(w.k.cgroup(w.id))); err != nil {
		return err
	}
	return os.RemoveAll(w.k.logDir(w.id)) // last: by it a later life knows the pod (adoptOrphans)
}
