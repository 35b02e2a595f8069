//go:build linux

package kubelet

import (
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// tally counts containers by what they mean for the pod's phase.
type tally struct {
	unknown, running, waiting    int
	stopped, stays, succeeded    int // stays: stopped, and will not be started again
	pendingInit, pendingSidecars int
	failedInit                   bool // for good
}

// phase is the phase of a pod with these container statuses (getPhase of pkg/kubelet). stopped says that no
// container runs or will run, initialized that a regular container was started in this sandbox.
func phase(pod *v1.Pod, statuses []v1.ContainerStatus, stopped, initialized bool) v1.PodPhase {
	var t tally
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if podutil.IsRestartableInitContainer(c) {
			t.sidecar(find(statuses, c.Name))
		} else {
			t.init(pod, c, find(statuses, c.Name))
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		t.regular(pod, c, find(statuses, c.Name))
	}
	switch {
	case t.failedInit:
		return v1.PodFailed
	case stopped && t.running == 0:
		return t.end()
	case t.pendingInit > 0 || t.pendingSidecars > 0 && !initialized || t.waiting > 0:
		return v1.PodPending
	case t.running > 0 && t.unknown == 0:
		return v1.PodRunning
	case t.running == 0 && t.stopped > 0 && t.unknown == 0:
		if t.stopped != t.stays {
			return v1.PodRunning // on the way to a restart
		}
		return t.end()
	}
	return v1.PodPending
}

func (t *tally) end() v1.PodPhase {
	if t.stopped > 0 && t.stopped == t.succeeded && t.unknown == 0 && t.waiting == 0 && t.pendingInit == 0 {
		return v1.PodSucceeded
	}
	return v1.PodFailed
}

func (t *tally) init(pod *v1.Pod, c *v1.Container, s *v1.ContainerStatus) {
	ended := lastEnd(s)
	switch {
	case ended == nil:
		t.pendingInit++
	case ended.ExitCode != 0 && !podutil.ContainerShouldRestart(*c, pod.Spec, ended.ExitCode):
		t.failedInit = true
	case s.State.Waiting != nil && ended.ExitCode == 0:
		t.pendingInit++ // to run once more, in a new sandbox
	case ended.ExitCode != 0:
		t.pendingInit++
	}
}

func (t *tally) sidecar(s *v1.ContainerStatus) {
	switch {
	case s == nil:
		t.unknown++
	case s.State.Running != nil:
		t.running++
		if s.Started == nil || !*s.Started {
			t.pendingSidecars++
		}
	case s.State.Waiting != nil && s.LastTerminationState.Terminated == nil:
		t.waiting++
		t.pendingSidecars++
	}
}

func (t *tally) regular(pod *v1.Pod, c *v1.Container, s *v1.ContainerStatus) {
	ended := lastEnd(s)
	switch {
	case s == nil:
		t.unknown++
	case s.State.Running != nil:
		t.running++
	case ended == nil:
		t.waiting++
	default:
		t.stopped++
		if !podutil.ContainerShouldRestart(*c, pod.Spec, ended.ExitCode) {
			t.stays++
		}
		if s.State.Terminated != nil && ended.ExitCode == 0 {
			t.succeeded++
		}
	}
}

// lastEnd is how a container ended that does not run: now, or before it began to wait for its restart.
func lastEnd(s *v1.ContainerStatus) *v1.ContainerStateTerminated {
	switch {
	case s == nil || s.State.Running != nil:
		return nil
	case s.State.Terminated != nil:
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}
