//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

// resizeRetry is how often a resize is tried again that other pods have no room for, or that has failed.
const resizeRetry = 5 * time.Second

// resizing is what keeps a resize from being done.
type resizing struct {
	pending *pendingResize // the node does not grant it
	failure string         // it is granted, and this is why the pod or a container does not have it yet
	retry   time.Time      // until then it is not tried again: what is told of the failure wakes the worker, too
}

type pendingResize struct {
	reason, message string
	generation      int64
}

// noteResources notes on a container what it is made with.
func noteResources(config *cri.ContainerConfig, r v1.ResourceRequirements) error {
	note, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("noting resources: %w", err)
	}
	config.Annotations[annotationResources] = string(note)
	return nil
}

// madeWith reads the note; nil where there is none, as on containers of older builds.
func madeWith(note string) *kubecontainer.ContainerResources {
	var r v1.ResourceRequirements
	if note == "" || json.Unmarshal([]byte(note), &r) != nil {
		return nil
	}
	return quantities(r)
}

func quantities(r v1.ResourceRequirements) *kubecontainer.ContainerResources {
	return &kubecontainer.ContainerResources{
		CPURequest: quantity(r.Requests, v1.ResourceCPU), CPULimit: quantity(r.Limits, v1.ResourceCPU),
		MemoryRequest: quantity(r.Requests, v1.ResourceMemory), MemoryLimit: quantity(r.Limits, v1.ResourceMemory),
	}
}

// madeRequirements are r with the CPU and memory that a container was made with.
func madeRequirements(made *kubecontainer.ContainerResources, r v1.ResourceRequirements) v1.ResourceRequirements {
	r = *r.DeepCopy()
	set := func(list *v1.ResourceList, name v1.ResourceName, q *resource.Quantity) {
		switch {
		case q == nil:
			delete(*list, name)
		case *list == nil:
			*list = v1.ResourceList{name: *q}
		default:
			(*list)[name] = *q
		}
	}
	set(&r.Requests, v1.ResourceCPU, made.CPURequest)
	set(&r.Requests, v1.ResourceMemory, made.MemoryRequest)
	set(&r.Limits, v1.ResourceCPU, made.CPULimit)
	set(&r.Limits, v1.ResourceMemory, made.MemoryLimit)
	return r
}

// actual are a container's own resources as it runs with them. A limit of the pod's shows there where the container has
// another of its own, as by Kubernetes' kubelet.
func actual(c *v1.Container, s *kubecontainer.Status) *v1.ResourceRequirements {
	if s.State != kubecontainer.ContainerStateRunning || s.Resources == nil {
		return c.Resources.DeepCopy()
	}
	r := madeRequirements(s.Resources, c.Resources)
	if len(c.Resources.Limits) == 0 {
		r.Limits = nil
	}
	return &r
}

func quantity(list v1.ResourceList, name v1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

// resized reports whether a container runs with other resources than it is to have, and whether it must be started
// anew for it.
func resized(pod *v1.Pod, c *v1.Container, s *kubecontainer.Status) (differs, restart bool) {
	if s.State != kubecontainer.ContainerStateRunning || s.Resources == nil {
		return false, false
	}
	wanted := containerResources(pod, c)
	compare := func(list v1.ResourceList, name v1.ResourceName, made *resource.Quantity) {
		now := quantity(list, name)
		if (now == nil) == (made == nil) && (now == nil || now.Cmp(*made) == 0) {
			return
		}
		differs = true
		for _, policy := range c.ResizePolicy {
			restart = restart || policy.ResourceName == name && policy.RestartPolicy == v1.RestartContainer
		}
	}
	compare(wanted.Requests, v1.ResourceCPU, s.Resources.CPURequest)
	compare(wanted.Limits, v1.ResourceCPU, s.Resources.CPULimit)
	compare(wanted.Requests, v1.ResourceMemory, s.Resources.MemoryRequest)
	compare(wanted.Limits, v1.ResourceMemory, s.Resources.MemoryLimit)
	return differs, restart
}

// resize grants what the specification asks for if the node has it (handlePodResourcesResize of pkg/kubelet/allocation).
// It returns when to ask again, 0 if that is no use.
func (w *worker) resize(ctx context.Context, runtime *kubecontainer.PodStatus) (time.Duration, error) {
	if w.grant == nil {
		if err := w.loadGrant(runtime); err != nil {
			return 0, err
		}
		w.noteApplied(runtime)
	}
	want := w.newestPod()
	if w.grant.on(want) == want {
		w.resizing.pending = nil
		return 0, nil
	}
	reason, message, err := w.judgeResize(ctx, want)
	if err != nil {
		return 0, err
	}
	if reason == "" {
		if err := w.saveGrant(granted(want, w.grant.Applied)); err != nil {
			return 0, err
		}
		w.resizing = resizing{}
		w.k.podEvent(want, v1.EventTypeNormal, events.ResizeStarted, events.PodResizeStartedMsg(klog.Logger{}, want, want.Generation))
		return 0, nil
	}
	now := &pendingResize{reason, message, want.Generation}
	if before := w.resizing.pending; before == nil || before.reason != now.reason || before.generation != now.generation {
		if err := w.saveGrant(w.grant); err != nil { // a later life must not take the wish for the promise
			return 0, err
		}
		event := events.ResizeDeferred
		if reason == v1.PodReasonInfeasible {
			event = events.ResizeInfeasible
		}
		w.k.podEvent(want, v1.EventTypeWarning, event, events.PodResizePendingMsg(klog.Logger{}, want, reason, message, want.Generation))
	}
	w.resizing.pending = now
	if reason == v1.PodReasonInfeasible {
		return 0, nil
	}
	return resizeRetry, nil
}

// judgeResize says why the node does not grant the resources of a pod, with an empty reason if it does.
func (w *worker) judgeResize(ctx context.Context, want *v1.Pod) (reason, message string, err error) {
	if isStatic(want) {
		return v1.PodReasonInfeasible, "In-place resize of static-pods is not supported", nil
	}
	w.k.admitting.Lock()
	defer w.k.admitting.Unlock()
	node, err := w.k.ownNode(ctx, true)
	if err != nil {
		return "", "", err
	}
	requests := resourcehelper.PodRequests(want, resourcehelper.PodResourcesOptions{})
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		asked, has := requests[name], node.Status.Allocatable[name]
		if asked.Cmp(has) > 0 {
			return v1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %s, capacity: %s", name, asked.String(), has.String()), nil
		}
	}
	var others []*v1.Pod
	for _, pod := range w.k.podsWithShare() {
		if pod.UID != want.UID {
			others = append(others, pod)
		}
	}
	result := w.k.admission.judge(want, others, func(context.Context, bool) (*v1.Node, error) { return node, nil })
	if !result.Admit {
		return v1.PodReasonDeferred, result.Message, nil
	}
	return "", "", nil
}

// podResized reports whether the pod's cgroup has other limits than the pod is promised, or may have.
func (w *worker) podResized() bool {
	return w.given == nil || !apiequality.Semantic.DeepEqual(w.given, podResources(w.pod))
}

// giveLimits gives the pod's cgroup what the pod is promised.
func (w *worker) giveLimits() error {
	if err := w.k.limit(w.k.cgroup(w.id), podLimits(w.pod)); err != nil {
		return err
	}
	w.given = podResources(w.pod)
	return nil
}

// raiseLimits gives the pod's cgroup more where the pod is promised more, so that its containers have room to grow.
func (w *worker) raiseLimits() error {
	path := w.k.cgroup(w.id)
	has, err := w.k.limited(path)
	if err != nil {
		return err
	}
	if raised := has.Raised(podLimits(w.pod)); raised != has {
		return w.k.limit(path, raised)
	}
	return nil
}

// applyResize gives the pod and its containers, while they run, what they are granted (doPodResizeAction of
// pkg/kubelet/kuberuntime). What it cannot do shows in the pod's status, and is tried again.
func (w *worker) applyResize(ctx context.Context, all []resizeAction) time.Duration {
	// After a start of ours nobody knows what the pod's cgroup has: most likely all that was promised.
	quiet := w.given == nil && len(all) == 0 && w.resizing.failure == ""
	err := w.tooSmall(all)
	if err == nil {
		err = w.raiseLimits()
	}
	if err == nil {
		err = w.updateContainers(ctx, all)
	}
	if err == nil {
		err = w.giveLimits()
	}
	if err == nil {
		if !quiet {
			w.k.podEvent(w.pod, v1.EventTypeNormal, events.ResizeCompleted, events.PodResizeCompletedMsg(klog.Logger{}, w.pod, w.pod.Generation))
		}
		w.resizing.failure, w.resizing.retry = "", time.Time{}
		return 0
	}
	if w.resizing.failure != err.Error() {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.ResizeError, events.PodResizeErrorMsg(klog.Logger{}, w.pod, w.pod.Generation, err.Error()))
	}
	w.resizing.failure, w.resizing.retry = err.Error(), time.Now().Add(resizeRetry)
	return resizeRetry
}

// updateContainers gives containers what they are to have.
func (w *worker) updateContainers(ctx context.Context, all []resizeAction) error {
	for _, r := range all {
		resources := &cri.ContainerResources{Linux: w.k.resources(w.pod, r.container)}
		if err := w.k.cfg.Runtime.UpdateContainerResources(ctx, r.status.ID.ID, resources); err != nil {
			return err
		}
		if err := w.applied(r.status.ID.ID, containerResources(w.pod, r.container)); err != nil {
			return err
		}
	}
	return nil
}

// tooSmall refuses a limit of memory below what the pod or a container uses now: the kernel would kill for it.
func (w *worker) tooSmall(all []resizeAction) error {
	path := w.k.cgroup(w.id)
	has, err := w.k.limited(path)
	if err != nil {
		return err
	}
	var errs []error
	if limit := podLimits(w.pod).Memory; limit > 0 && (has.Memory <= 0 || limit < has.Memory) {
		errs = append(errs, w.k.fits("pod", path, limit))
	}
	for _, r := range all {
		wanted := containerResources(w.pod, r.container)
		limit := wanted.Limits.Memory()
		if old := r.status.Resources.MemoryLimit; limit.IsZero() || old != nil && limit.Cmp(*old) >= 0 {
			continue
		}
		errs = append(errs, w.k.fits(fmt.Sprintf("container %q", r.container.Name), path+"/"+r.status.ID.ID, limit.Value()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}

// fits refuses a limit of memory below what a cgroup uses, also where nobody knows that.
func (k *Kubelet) fits(what, cgroup string, limit int64) error {
	use, err := k.used(cgroup)
	switch {
	case err != nil:
		return fmt.Errorf("missing %s memory usage: %w", what, err)
	case use.Memory >= uint64(limit):
		return fmt.Errorf("attempting to set %s memory limit (%d) below current usage (%d)", what, limit, use.Memory)
	}
	return nil
}

// resizeConditions say how far a resize is; none where nothing is to be done.
func (r report) resizeConditions() (all []v1.PodCondition) {
	if p := r.resizing.pending; p != nil {
		all = append(all, v1.PodCondition{
			Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: p.reason, Message: p.message, ObservedGeneration: p.generation,
		})
	}
	if r.resizes() {
		progress := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: r.pod.Generation}
		if r.resizing.failure != "" {
			progress.Reason, progress.Message = v1.PodReasonError, r.resizing.failure
		}
		all = append(all, progress)
	}
	return all
}

// resizes reports whether the pod or a container that runs does not have yet what it is promised.
func (r report) resizes() bool {
	for _, c := range resizable(r.pod) {
		if s := r.runtime.FindContainerStatusByName(c.Name); s != nil {
			if differs, _ := resized(r.pod, c, s); differs {
				return true
			}
		}
	}
	if r.given == nil { // as it was told before, until it is known
		_, before := podutil.GetPodConditionFromList(r.old.Conditions, v1.PodResizeInProgress)
		return before != nil || r.resizing.failure != ""
	}
	return !apiequality.Semantic.DeepEqual(r.given, r.promised)
}

// podResources are what the pod's cgroup has and, of a pod without one, is to have.
func (r report) podResources() *v1.ResourceRequirements {
	switch {
	case r.given != nil:
		return r.given
	case r.old.Resources != nil: // as it was told before, until it is known
		return r.old.Resources
	}
	return r.promised
}
