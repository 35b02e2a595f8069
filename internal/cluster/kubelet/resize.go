//go:build linux

package kubelet

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
)

// A change of the resources of a container that runs (the subresource resize) waits until it starts again. The
// status says so: what a container was made with is noted on it.

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
	return &kubecontainer.ContainerResources{
		CPURequest: quantity(r.Requests, v1.ResourceCPU), CPULimit: quantity(r.Limits, v1.ResourceCPU),
		MemoryRequest: quantity(r.Requests, v1.ResourceMemory), MemoryLimit: quantity(r.Limits, v1.ResourceMemory),
	}
}

func quantity(list v1.ResourceList, name v1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

func lists(cpu, memory *resource.Quantity) v1.ResourceList {
	list := v1.ResourceList{}
	if cpu != nil {
		list[v1.ResourceCPU] = *cpu
	}
	if memory != nil {
		list[v1.ResourceMemory] = *memory
	}
	return list
}

// resized reports whether a container runs with other resources than its specification now has.
func resized(c *v1.Container, s *kubecontainer.Status) bool {
	if s.State != kubecontainer.ContainerStateRunning || s.Resources == nil {
		return false
	}
	differ := func(list v1.ResourceList, name v1.ResourceName, made *resource.Quantity) bool {
		now := quantity(list, name)
		return (now == nil) != (made == nil) || now != nil && now.Cmp(*made) != 0
	}
	return differ(c.Resources.Requests, v1.ResourceCPU, s.Resources.CPURequest) || differ(c.Resources.Limits, v1.ResourceCPU, s.Resources.CPULimit) ||
		differ(c.Resources.Requests, v1.ResourceMemory, s.Resources.MemoryRequest) || differ(c.Resources.Limits, v1.ResourceMemory, s.Resources.MemoryLimit)
}

// resizePending is the condition of a pod of which a container waits for its new resources, nil if none does.
func (r report) resizePending() *v1.PodCondition {
	for _, s := range r.runtime.ActiveContainerStatuses {
		c := kubecontainer.GetContainerSpec(r.pod, s.Name)
		if c != nil && resized(c, s) {
			return &v1.PodCondition{
				Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: v1.PodReasonInfeasible, ObservedGeneration: r.pod.Generation,
				Message: fmt.Sprintf("container %s runs with the resources that it was started with: minato changes them when it starts again", c.Name),
			}
		}
	}
	return nil
}
