//go:build linux

package kubelet

import (
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/qos"
	kubeletutil "k8s.io/kubernetes/pkg/kubelet/util"

	"minato/internal/cluster/kubelet/cgroup"
)

// podLimits are those of the pod's own cgroup: what its containers get together. Without them all pods would weigh the
// same, whatever they ask for.
func podLimits(pod *v1.Pod) cgroup.Limits {
	c := cm.ResourceConfigForPod(pod, true, cm.QuotaPeriod, false, kubeletconfig.NoneMemoryReservationPolicy)
	l := cgroup.Limits{CPUShares: cm.MinShares, CPUPeriod: cm.QuotaPeriod}
	if c.CPUShares != nil {
		l.CPUShares = *c.CPUShares
	}
	if c.CPUQuota != nil {
		l.CPUQuota = *c.CPUQuota
	}
	if c.Memory != nil {
		l.Memory = *c.Memory
	}
	return l
}

// podResources are podLimits in the terms of the API: the pod's own resources or, where it has none, those of its
// containers together. A limit of only some containers is none.
func podResources(pod *v1.Pod) *v1.ResourceRequirements {
	r := &v1.ResourceRequirements{
		Requests: resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}),
		Limits:   resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{}),
	}
	l := podLimits(pod)
	if l.CPUQuota <= 0 {
		delete(r.Limits, v1.ResourceCPU)
	}
	if l.Memory <= 0 {
		delete(r.Limits, v1.ResourceMemory)
	}
	return r
}

// containerResources are what a container is to have: its own resources, and the pod's limits where it has none.
func containerResources(pod *v1.Pod, c *v1.Container) v1.ResourceRequirements {
	r := c.Resources
	if pod.Spec.Resources != nil {
		r.Limits = kubeletutil.GetLimits(&kubeletutil.ResourceOpts{PodResources: pod.Spec.Resources, ContainerResources: &c.Resources})
	}
	return r
}

// resources are a container's cgroup settings (generateLinuxContainerResources of pkg/kubelet/kuberuntime).
func (k *Kubelet) resources(pod *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	has := containerResources(pod, c)
	request, ok := has.Requests[v1.ResourceCPU]
	if !ok {
		request = *has.Limits.Cpu()
	}
	r := &cri.LinuxContainerResources{
		CpuShares:          int64(cm.MilliCPUToShares(request.MilliValue())),
		CpuPeriod:          cm.QuotaPeriod,
		CpuQuota:           cm.MilliCPUToQuota(has.Limits.Cpu().MilliValue(), cm.QuotaPeriod),
		OomScoreAdj:        int64(qos.GetContainerOOMScoreAdjust(pod, c, k.capacity.Memory().Value())),
		MemoryLimitInBytes: has.Limits.Memory().Value(),
	}
	if cgroup.Unified() { // the whole container ends when one of its processes is killed for memory
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}
