//go:build linux

package kubelet

import (
	"net/netip"
	"slices"
	"sort"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	podstatus "k8s.io/kubernetes/pkg/kubelet/status"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// The reasons of containers that wait without an error (pkg/kubelet).
const (
	reasonContainerCreating = "ContainerCreating"
	reasonPodInitializing   = "PodInitializing"
)

// waiting is why a container does not start.
type waiting struct {
	reason, message string
	until           time.Time // until then it is not tried again
	hash            uint64    // of the specification that could not be started
}

// report is what a pod's status is computed from.
type report struct {
	pod     *v1.Pod
	old     v1.PodStatus // the last that was computed, else the API's
	runtime *kubecontainer.PodStatus
	waiting map[string]waiting // by container name
	probes  states
	hostIPs []netip.Addr
	stopped bool     // no container runs or will run
	verdict *verdict // why the node has ended the pod, nil if it has not
	leaving bool     // the node is being stopped

	resizing resizing
	given    *v1.ResourceRequirements // what the pod's cgroup has; nil where nobody knows
	promised *v1.ResourceRequirements // what it is to have; set by status
}

// status computes the status of a pod in the API (generateAPIPodStatus of pkg/kubelet). It is pure but for the time
// in conditions that change.
func (r report) status() v1.PodStatus {
	r.promised = podResources(r.pod)
	s := v1.PodStatus{
		QOSClass:           qos.GetPodQOS(r.pod),
		ObservedGeneration: r.pod.Generation,
		StartTime:          r.old.StartTime,
		NominatedNodeName:  r.old.NominatedNodeName, Resize: r.old.Resize,
		ResourceClaimStatuses: r.old.ResourceClaimStatuses,
	}
	if s.StartTime == nil {
		now := metav1.Now()
		s.StartTime = &now
	}
	s.InitContainerStatuses = r.containers(r.pod.Spec.InitContainers, r.old.InitContainerStatuses, true)
	s.ContainerStatuses = r.containers(r.pod.Spec.Containers, r.old.ContainerStatuses, false)
	var ephemeral []v1.Container
	for _, e := range r.pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, v1.Container(e.EphemeralContainerCommon))
	}
	s.EphemeralContainerStatuses = r.containers(ephemeral, r.old.EphemeralContainerStatuses, false)
	r.readiness(&s)
	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses)
	s.Phase = phase(r.pod, all, r.stopped, kubecontainer.HasAnyActiveRegularContainerStarted(&r.pod.Spec, r.runtime))
	if terminal(r.old.Phase) {
		s.Phase = r.old.Phase // never left
	}
	if r.verdict != nil {
		s.Phase, s.Reason, s.Message = v1.PodFailed, r.verdict.reason, r.verdict.message
	} else if s.Phase == r.old.Phase {
		s.Reason, s.Message = r.old.Reason, r.old.Message
	}
	s.AllocatedResources, s.Resources = r.promised.Requests, r.podResources()
	r.conditions(&s)
	r.addresses(&s)
	return s
}

func terminal(phase v1.PodPhase) bool { return phase == v1.PodFailed || phase == v1.PodSucceeded }

// conditions sets the kubelet's own and keeps the others.
func (r report) conditions(s *v1.PodStatus) {
	for _, c := range r.pod.Status.Conditions {
		if !kubetypes.PodConditionByKubelet(c.Type) {
			s.Conditions = append(s.Conditions, c)
		}
	}
	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses)
	own := []v1.PodCondition{
		podstatus.GeneratePodReadyToStartContainersCondition(r.pod, &r.old, r.runtime),
		podstatus.GeneratePodInitializedCondition(r.pod, &r.old, all, s.Phase),
		podstatus.GeneratePodReadyCondition(r.pod, &r.old, s.Conditions, all, s.Phase),
		podstatus.GenerateContainersReadyCondition(r.pod, &r.old, all, s.Phase),
		{Type: v1.PodScheduled, Status: v1.ConditionTrue, ObservedGeneration: podutil.CalculatePodConditionObservedGeneration(&r.old, r.pod.Generation, v1.PodScheduled)},
	}
	if !terminal(s.Phase) {
		own = append(own, r.resizeConditions()...)
	}
	for _, c := range own {
		if r.leaving && c.Type == v1.PodReady {
			c.Status, c.Reason, c.Message = v1.ConditionFalse, "NodeShutdown", "The node is being stopped"
		}
		c.LastTransitionTime = metav1.Now()
		if _, old := podutil.GetPodConditionFromList(r.old.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		s.Conditions = append(s.Conditions, c)
	}
}

// addresses sets those of the pod and of its node. A pod that ends keeps the address it had, for who still looks.
func (r report) addresses(s *v1.PodStatus) {
	for _, ip := range r.hostIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip.String()})
	}
	for _, ip := range r.podIPs() {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

func (r report) podIPs() []string {
	switch {
	case r.pod.Spec.HostNetwork:
		var ips []string
		for _, ip := range r.hostIPs {
			ips = append(ips, ip.String())
		}
		return ips
	case len(r.runtime.IPs) > 0 || !r.stopped && r.pod.DeletionTimestamp == nil && !terminal(r.old.Phase):
		return r.runtime.IPs
	}
	var ips []string
	for _, ip := range r.old.PodIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

// readiness sets started and ready from what the probes have found (UpdatePodStatus of pkg/kubelet/prober).
func (r report) readiness(s *v1.PodStatus) {
	update := func(c *v1.ContainerStatus, sidecar, init bool) {
		running := c.State.Running != nil
		started, ready := false, false
		if running {
			// A container that is not watched yet is the zero State.
			state, _ := r.probes(kubecontainer.ParseContainerID(c.ContainerID).ID)
			started, ready = state.Started, state.Ready
		}
		c.Started = &started
		c.Ready = ready
		if init && !sidecar {
			c.Ready = c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		}
	}
	for i := range s.ContainerStatuses {
		update(&s.ContainerStatuses[i], false, false)
	}
	for i := range s.InitContainerStatuses {
		c := &s.InitContainerStatuses[i]
		spec := kubecontainer.GetContainerSpec(r.pod, c.Name)
		update(c, spec != nil && podutil.IsRestartableInitContainer(spec), true)
	}
}

// containers are the statuses of the containers of one kind, in the order in which the API shows them.
func (r report) containers(specs []v1.Container, old []v1.ContainerStatus, init bool) []v1.ContainerStatus {
	byName := make(map[string]*v1.ContainerStatus, len(specs))
	for i := range specs {
		status := r.container(&specs[i], find(old, specs[i].Name), init)
		byName[specs[i].Name] = &status
	}
	if init {
		return kubetypes.SortStatusesOfInitContainers(r.pod, byName)
	}
	var statuses []v1.ContainerStatus
	for _, status := range byName {
		statuses = append(statuses, *status)
	}
	sort.Sort(kubetypes.SortedContainerStatuses(statuses))
	return statuses
}

func find(statuses []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

// container is one container's status: of its newest instance, of the one before that, or of waiting for the first.
func (r report) container(spec *v1.Container, old *v1.ContainerStatus, init bool) v1.ContainerStatus {
	var instances []*kubecontainer.Status
	for _, s := range r.runtime.ContainerStatuses { // the newest first
		if s.Name == spec.Name {
			instances = append(instances, s)
		}
	}
	if len(instances) == 0 {
		return r.absent(spec, old, init)
	}
	status := instance(instances[0])
	if old != nil && old.RestartCount > status.RestartCount {
		status.RestartCount = old.RestartCount
	}
	switch {
	case len(instances) > 1:
		status.LastTerminationState = instance(instances[1]).State
	case old != nil && old.ContainerID != status.ContainerID && old.State.Terminated != nil:
		status.LastTerminationState = old.State
	case old != nil:
		status.LastTerminationState = old.LastTerminationState
	}
	status.AllocatedResources, status.Resources = spec.Resources.Requests, actual(spec, instances[0])
	status.User = user(instances[0].User)
	status.VolumeMounts = volumeMounts(spec)
	return r.orWaiting(spec, status, init)
}

// absent is the status of a container that the runtime does not know: not yet, or not any more.
func (r report) absent(spec *v1.Container, old *v1.ContainerStatus, init bool) v1.ContainerStatus {
	status := v1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, VolumeMounts: volumeMounts(spec),
		State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reasonContainerCreating}},
	}
	if len(r.pod.Spec.InitContainers) > 0 {
		status.State.Waiting.Reason = reasonPodInitializing
	}
	if old != nil {
		if old.State.Terminated != nil {
			status = *old
		} else {
			status.RestartCount, status.LastTerminationState = old.RestartCount, old.LastTerminationState
		}
		if old.State.Running != nil && status.LastTerminationState.Terminated == nil {
			// It ran, so that the pod must not fall back to Pending.
			status.LastTerminationState.Terminated = unknownEnd("The container could not be located when the pod was deleted.  The container used to be Running")
			if r.pod.DeletionTimestamp == nil {
				status.RestartCount++
			}
		}
	}
	switch {
	case init && !podutil.IsRestartableInitContainer(spec) && status.State.Waiting != nil && anyCreated(r.pod, r.runtime):
		status.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			Reason:  "Completed",
			Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
		}}
		return status
	case r.stopped && status.State.Terminated == nil:
		status.State = v1.ContainerState{Terminated: unknownEnd("The container could not be located when the pod was terminated")}
		return status
	}
	return r.orWaiting(spec, status, init)
}

// unknownEnd is how a container ended of which nothing is known; 137 says that it was not well.
func unknownEnd(message string) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{Reason: kubecontainer.ContainerReasonStatusUnknown, Message: message, ExitCode: 137}
}

// orWaiting shows a container that is to be started, and cannot be yet, as waiting for that.
func (r report) orWaiting(spec *v1.Container, status v1.ContainerStatus, init bool) v1.ContainerStatus {
	why, ok := r.waiting[spec.Name]
	if !ok || init && succeeded(r.runtime.FindContainerStatusByName(spec.Name)) ||
		!kubecontainer.ShouldContainerBeRestarted(klog.Logger{}, spec, r.pod, r.runtime) {
		return status
	}
	if status.State.Terminated != nil {
		status.LastTerminationState = status.State
	}
	status.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: why.reason, Message: why.message}}
	return status
}

// instance is the status of one instance of a container.
func instance(s *kubecontainer.Status) v1.ContainerStatus {
	status := v1.ContainerStatus{
		Name: s.Name, RestartCount: int32(s.RestartCount), Image: s.Image, ImageID: s.ImageRef, ContainerID: s.ID.String(),
	}
	switch s.State {
	case kubecontainer.ContainerStateRunning:
		status.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(s.StartedAt)}
	case kubecontainer.ContainerStateExited:
		status.State.Terminated = &v1.ContainerStateTerminated{
			ExitCode: int32(s.ExitCode), Reason: s.Reason, Message: s.Message, ContainerID: s.ID.String(),
			StartedAt: metav1.NewTime(s.StartedAt), FinishedAt: metav1.NewTime(s.FinishedAt),
		}
	default:
		status.State.Waiting = &v1.ContainerStateWaiting{}
	}
	return status
}

// user is who runs a container, as far as the runtime tells: containerd does from 2.0 on.
func user(u *kubecontainer.ContainerUser) *v1.ContainerUser {
	if u == nil || u.Linux == nil {
		return nil
	}
	return &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: u.Linux.UID, GID: u.Linux.GID, SupplementalGroups: u.Linux.SupplementalGroups}}
}

func volumeMounts(spec *v1.Container) []v1.VolumeMountStatus {
	var list []v1.VolumeMountStatus
	for _, m := range spec.VolumeMounts {
		s := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			disabled := v1.RecursiveReadOnlyDisabled
			s.RecursiveReadOnly = &disabled
		}
		list = append(list, s)
	}
	return list
}
