//go:build linux

package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

// resizeRetry is how often a resize is tried again that other pods have no room for, or that has failed.
const resizeRetry = 5 * time.Second

// resizing is what keeps a resize from being done.
type resizing struct {
	pending *pendingResize // the node does not grant it
	failure string         // it is granted, and this is why containers do not have it yet
}

type pendingResize struct {
	reason, message string
	generation      int64
}

// noteResources notes on a container what it is made with.
func noteResources(config *cri.ContainerConfig, c *v1.Container) error {
	note, err := json.Marshal(c.Resources)
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
	return containerResources(r)
}

func containerResources(r v1.ResourceRequirements) *kubecontainer.ContainerResources {
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

func quantity(list v1.ResourceList, name v1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

// resized reports whether a container runs with other resources than it is to have, and whether it must be started
// anew for it.
func resized(c *v1.Container, s *kubecontainer.Status) (differs, restart bool) {
	if s.State != kubecontainer.ContainerStateRunning || s.Resources == nil {
		return false, false
	}
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
	compare(c.Resources.Requests, v1.ResourceCPU, s.Resources.CPURequest)
	compare(c.Resources.Limits, v1.ResourceCPU, s.Resources.CPULimit)
	compare(c.Resources.Requests, v1.ResourceMemory, s.Resources.MemoryRequest)
	compare(c.Resources.Limits, v1.ResourceMemory, s.Resources.MemoryLimit)
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

// applyResize gives containers that run what they are granted (doPodResizeAction of pkg/kubelet/kuberuntime). What it
// cannot do shows in the pod's status, and is tried again.
func (w *worker) applyResize(ctx context.Context, all []resizeAction) time.Duration {
	err := w.k.tooSmall(w.pod, all)
	if err == nil {
		_ = w.k.setLimits(w.pod) // before containers grow; fails where they are to shrink first
		for _, r := range all {
			resources := &cri.ContainerResources{Linux: w.k.resources(w.pod, r.container)}
			if err = w.k.cfg.Runtime.UpdateContainerResources(ctx, r.status.ID.ID, resources); err == nil {
				err = w.applied(r.status.ID.ID, r.container.Resources)
			}
			if err != nil {
				break
			}
		}
	}
	if err == nil {
		err = w.k.setLimits(w.pod)
	}
	if err == nil {
		w.resizing.failure = ""
		w.k.podEvent(w.pod, v1.EventTypeNormal, events.ResizeCompleted, events.PodResizeCompletedMsg(klog.Logger{}, w.pod, w.pod.Generation))
		return 0
	}
	if w.resizing.failure != err.Error() {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.ResizeError, events.PodResizeErrorMsg(klog.Logger{}, w.pod, w.pod.Generation, err.Error()))
	}
	w.resizing.failure = err.Error()
	return resizeRetry
}

// tooSmall refuses a limit of memory below what a container uses now: the kernel would kill it.
func (k *Kubelet) tooSmall(pod *v1.Pod, all []resizeAction) error {
	var errs []error
	for _, r := range all {
		limit := limit(pod, r.container, v1.ResourceMemory)
		if old := r.status.Resources.MemoryLimit; limit.IsZero() || old != nil && limit.Cmp(*old) >= 0 {
			continue
		}
		use, err := k.used(k.cgroup(identify(pod)) + "/" + r.status.ID.ID)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("missing container %q memory usage: %w", r.container.Name, err))
		case use.Memory >= uint64(limit.Value()):
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", r.container.Name, limit.Value(), use.Memory))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
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
	for _, s := range r.runtime.ActiveContainerStatuses {
		c := kubecontainer.GetContainerSpec(r.pod, s.Name)
		if c == nil {
			continue
		}
		if differs, _ := resized(c, s); differs {
			progress := v1.PodCondition{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: r.pod.Generation}
			if r.resizing.failure != "" {
				progress.Reason, progress.Message = v1.PodReasonError, r.resizing.failure
			}
			return append(all, progress)
		}
	}
	return all
}
