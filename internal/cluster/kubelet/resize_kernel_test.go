//go:build linux

package kubelet_test

import (
	"path"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/cluster/kubelet/cgroup"
	"minato/internal/netns"
)

func limits(cpu, memory string) *v1.ResourceRequirements {
	return &v1.ResourceRequirements{Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}}
}

// TestAResizeOfAWholePodReachesTheKernel raises and lowers, in the order that the kernel asks for.
func TestAResizeOfAWholePodReachesTheKernel(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("whole", "sleep", func(p *v1.Pod) { p.Spec.Resources = limits("500m", "64Mi") }))
	w.until("whole", "running", running)
	id := w.containerID("whole")
	for _, c := range []struct {
		cpu, memory string
		quota, size int64
	}{{"800m", "128Mi", 80_000, 128 << 20}, {"300m", "96Mi", 30_000, 96 << 20}} {
		p := w.get("whole")
		p.Generation++
		p.Spec.Resources = limits(c.cpu, c.memory)
		if _, err := w.client.CoreV1().Pods(namespace).Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.until("whole", "resized", func(p *v1.Pod) bool {
			return p.Status.Resources.Limits.Cpu().String() == c.cpu && condition(p, v1.PodResizeInProgress) == v1.ConditionUnknown
		})
		whole := path.Join(w.config.CgroupRoot, "pod"+string(p.UID))
		for _, dir := range []string{whole, path.Join(whole, id)} {
			got, err := cgroup.Get(dir)
			if err != nil || got.CPUQuota != c.quota || got.Memory != c.size {
				t.Errorf("after %s and %s: %s has %+v, %v", c.cpu, c.memory, dir, got, err)
			}
		}
	}
	if now := w.containerID("whole"); now != id {
		t.Error("the container was started again")
	}
}
