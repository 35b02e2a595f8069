//go:build linux

package kubelet

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	runtimeutil "k8s.io/kubernetes/pkg/kubelet/kuberuntime/util"

	"minato/internal/cluster/kubelet/probe"
)

// actions are what brings a pod from what the runtime has to what its specification wants.
type actions struct {
	killPod       bool // all containers and the sandbox
	createSandbox bool
	sandboxID     string // the newest, if any
	attempt       uint32 // of the sandbox to create
	kill          []killAction
	start         []startAction // in this order
	resize        []resizeAction
	limits        bool // of the pod's own cgroup are to change
}

// resizeAction gives a container that runs other resources.
type resizeAction struct {
	container *v1.Container
	status    *kubecontainer.Status
}

type killAction struct {
	id        kubecontainer.ContainerID
	container *v1.Container
	message   string // for the event
	reason    killReason
}

type startAction struct {
	container *v1.Container
	init      bool // a failure stops the ones after it
	ephemeral bool // `kubectl debug`: once, whatever becomes of it
}

// killReason chooses the grace period.
type killReason string

const (
	killedByStartup  killReason = "StartupProbe"
	killedByLiveness killReason = "LivenessProbe"
	killedOtherwise  killReason = ""
)

// states is what probes have found of a container.
type states func(containerID string) (probe.State, bool)

// plan says what to do for a pod that is not being deleted (computePodActions of pkg/kubelet/kuberuntime). It does
// nothing itself and knows no clock: back-off is the worker's.
func plan(pod *v1.Pod, status *kubecontainer.PodStatus, probes states) actions {
	create, attempt, sandboxID := runtimeutil.PodSandboxChanged(pod, status)
	a := actions{createSandbox: create, killPod: create, sandboxID: sandboxID, attempt: attempt}
	if create {
		planSandbox(pod, status, &a)
		return a
	}
	planEphemeral(pod, status, &a)
	if initialized := planInit(pod, status, probes, &a); a.killPod || !initialized {
		return a
	}
	keep := 0
	for i := range pod.Spec.Containers {
		if planContainer(pod, &pod.Spec.Containers[i], status, probes, &a) {
			keep++
		}
	}
	if keep == 0 && !startsRegular(a.start) {
		a.killPod, a.start = true, nil // all are done: sidecars do not keep a pod alive
	}
	return a
}

func startsRegular(starts []startAction) bool {
	for _, s := range starts {
		if !s.init && !s.ephemeral {
			return true
		}
	}
	return false
}

// planSandbox is the plan of a pod without a usable sandbox: everything anew, unless it is done already.
func planSandbox(pod *v1.Pod, status *kubecontainer.PodStatus, a *actions) {
	if pod.Spec.RestartPolicy == v1.RestartPolicyNever && a.attempt != 0 && len(status.ContainerStatuses) != 0 {
		a.createSandbox = false
		return
	}
	var start []startAction
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if runsOnce(pod, c) && succeeded(status.FindContainerStatusByName(c.Name)) {
			continue
		}
		start = append(start, startAction{container: c})
	}
	if len(start) == 0 && anyCreated(pod, status) {
		a.createSandbox = false
		return
	}
	if len(pod.Spec.InitContainers) > 0 {
		a.start = []startAction{{container: &pod.Spec.InitContainers[0], init: true}}
		return
	}
	a.start = start
}

// runsOnce reports whether a container that has succeeded is not started again.
func runsOnce(pod *v1.Pod, c *v1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy == v1.ContainerRestartPolicyOnFailure
	}
	return pod.Spec.RestartPolicy == v1.RestartPolicyOnFailure
}

func succeeded(s *kubecontainer.Status) bool {
	return s != nil && s.State == kubecontainer.ContainerStateExited && s.ExitCode == 0
}

// anyCreated reports whether a regular container exists, which means that initialization was done once.
func anyCreated(pod *v1.Pod, status *kubecontainer.PodStatus) bool {
	for i := range pod.Spec.Containers {
		if status.FindContainerStatusByName(pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

// planEphemeral plans the ephemeral containers that were never started.
func planEphemeral(pod *v1.Pod, status *kubecontainer.PodStatus, a *actions) {
	for i := range pod.Spec.EphemeralContainers {
		c := (*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if status.FindContainerStatusByName(c.Name) == nil {
			a.start = append(a.start, startAction{container: c, ephemeral: true})
		}
	}
}

// planContainer plans one regular container and reports whether it runs and is to go on.
func planContainer(pod *v1.Pod, c *v1.Container, status *kubecontainer.PodStatus, probes states, a *actions) (keep bool) {
	s := status.FindContainerStatusByName(c.Name)
	if s == nil || s.State != kubecontainer.ContainerStateRunning {
		if !kubecontainer.ShouldContainerBeRestarted(klog.Logger{}, c, pod, status) {
			return false
		}
		if s != nil && s.State == kubecontainer.ContainerStateUnknown {
			a.kill = append(a.kill, killAction{s.ID, c, fmt.Sprintf("Container is in %q state, try killing it before restart", s.State), killedOtherwise})
		}
		a.start = append(a.start, startAction{container: c})
		return false
	}
	message, reason, changed := wrong(c, s, probes, "Container")
	if message == "" {
		differs, restart := resized(pod, c, s)
		if differs && !restart {
			a.resize = append(a.resize, resizeAction{c, s})
		}
		if !restart {
			return true
		}
		message, changed = fmt.Sprintf("Container %s resize requires restart", c.Name), true
	}
	if changed || restarts(pod, c) {
		message += ", will be restarted"
		a.start = append(a.start, startAction{container: c})
	}
	a.kill = append(a.kill, killAction{s.ID, c, message, reason})
	return false
}

// wrong says why a running container must be stopped, empty if it must not.
func wrong(c *v1.Container, s *kubecontainer.Status, probes states, kind string) (message string, reason killReason, changed bool) {
	if s.Hash != kubecontainer.HashContainer(c) {
		return fmt.Sprintf("%s %s definition changed", kind, c.Name), killedOtherwise, true
	}
	state, ok := probes(s.ID.ID)
	switch {
	case !ok || state.Alive:
		return "", killedOtherwise, false
	case state.Failed == "Startup":
		return fmt.Sprintf("%s %s failed startup probe", kind, c.Name), killedByStartup, false
	}
	return fmt.Sprintf("%s %s failed liveness probe", kind, c.Name), killedByLiveness, false
}

func restarts(pod *v1.Pod, c *v1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy != v1.ContainerRestartPolicyNever
	}
	return pod.Spec.RestartPolicy != v1.RestartPolicyNever
}

// planInit plans init containers and reports whether the regular ones may start. It goes backwards, because
// earlier init containers may be gone from the runtime: the last one that is there tells how far it went.
func planInit(pod *v1.Pod, status *kubecontainer.PodStatus, probes states, a *actions) (initialized bool) {
	if len(pod.Spec.InitContainers) == 0 {
		return true
	}
	before := wasInitialized(pod, status)
	initialized = before
	decided := before // the next one to start is known
	var start []int
	last := len(pod.Spec.InitContainers) - 1
	for i := last; i >= 0; i-- {
		c := &pod.Spec.InitContainers[i]
		sidecar := podutil.IsRestartableInitContainer(c)
		s := status.FindContainerStatusByName(c.Name)
		if s == nil {
			if decided && sidecar {
				start = append(start, i)
			}
			continue
		}
		if decided && !sidecar {
			continue
		}
		restart, done := planInitContainer(pod, c, s, status, probes, a)
		if a.killPod {
			return false
		}
		if restart {
			start = append(start, i)
		}
		if !decided && done {
			if i == last {
				initialized = true
			} else {
				start = append(start, i+1)
			}
		}
		decided = true
	}
	if !decided {
		start = []int{0}
	}
	for i := len(start) - 1; i >= 0; i-- {
		a.start = append(a.start, startAction{container: &pod.Spec.InitContainers[start[i]], init: true})
	}
	return initialized
}

// planInitContainer says whether an init container that exists is to be started again, and whether it has done its
// part, so that the next may start.
func planInitContainer(pod *v1.Pod, c *v1.Container, s *kubecontainer.Status, status *kubecontainer.PodStatus, probes states, a *actions) (restart, done bool) {
	sidecar := podutil.IsRestartableInitContainer(c)
	switch s.State {
	case kubecontainer.ContainerStateCreated:
		return true, false
	case kubecontainer.ContainerStateRunning:
		if !sidecar {
			return false, false
		}
		state, ok := probes(s.ID.ID)
		done = ok && state.Started // whatever its liveness
		message, reason, _ := wrong(c, s, probes, "Init container")
		if differs, restart := resized(pod, c, s); message == "" && restart {
			message = fmt.Sprintf("Init container %s resize requires restart", c.Name)
		} else if message == "" && differs {
			a.resize = append(a.resize, resizeAction{c, s})
		}
		if message == "" || !done && reason != killedByStartup {
			return false, done
		}
		a.kill = append(a.kill, killAction{s.ID, c, message, reason})
		return true, done
	case kubecontainer.ContainerStateExited:
		if sidecar {
			return true, false
		}
		if s.ExitCode == 0 {
			return false, true
		}
		if !kubecontainer.ShouldContainerBeRestarted(klog.Logger{}, c, pod, status) {
			a.killPod, a.start = true, nil
			return false, false
		}
		return true, false
	}
	// Unknown: it may run. Rules about exit codes say nothing of it.
	if !sidecar && !restarts(pod, c) {
		a.killPod, a.start = true, nil
		return false, false
	}
	a.kill = append(a.kill, killAction{s.ID, c, fmt.Sprintf("Init container is in %q state, try killing it before restart", s.State), killedOtherwise})
	return true, false
}

// wasInitialized reports whether a regular container of the pod runs or was made.
func wasInitialized(pod *v1.Pod, status *kubecontainer.PodStatus) bool {
	for i := range pod.Spec.Containers {
		s := status.FindContainerStatusByName(pod.Spec.Containers[i].Name)
		if s != nil && (s.State == kubecontainer.ContainerStateRunning || s.State == kubecontainer.ContainerStateCreated) {
			return true
		}
	}
	return false
}
