//go:build linux

package kubelet

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/qos"

	"minato/internal/cluster/kubelet/cgroup"
)

// setLimits gives the pod's own cgroup what its containers get together. Without it all pods would weigh the same,
// whatever they ask for.
func (k *Kubelet) setLimits(pod *v1.Pod) error {
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
	return k.limit(k.cgroup(identify(pod)), l)
}

// resources are a container's cgroup settings (generateLinuxContainerResources of pkg/kubelet/kuberuntime).
func (k *Kubelet) resources(pod *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	cpu, memory := limit(pod, c, v1.ResourceCPU), limit(pod, c, v1.ResourceMemory)
	request, ok := c.Resources.Requests[v1.ResourceCPU]
	if !ok {
		request = cpu
	}
	r := &cri.LinuxContainerResources{
		CpuShares:          int64(cm.MilliCPUToShares(request.MilliValue())),
		CpuPeriod:          cm.QuotaPeriod,
		CpuQuota:           cm.MilliCPUToQuota(cpu.MilliValue(), cm.QuotaPeriod),
		OomScoreAdj:        int64(qos.GetContainerOOMScoreAdjust(pod, c, k.capacity.Memory().Value())),
		MemoryLimitInBytes: memory.Value(),
	}
	if cgroup.Unified() { // the whole container ends when one of its processes is killed for memory
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}

// limit is the container's own or, where it has none, the pod's.
func limit(pod *v1.Pod, c *v1.Container, name v1.ResourceName) resource.Quantity {
	if own, ok := c.Resources.Limits[name]; ok || !resourcehelper.IsPodLevelResourcesSet(pod) {
		return own
	}
	return pod.Spec.Resources.Limits[name]
}
