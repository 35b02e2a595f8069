//go:build linux

package kubelet

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAResizeWaitsForTheNextStartAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("", "64Mi")}
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		b.within(time.Second, "running", b.running)
		if c := conditionOf(b.pod().Status, v1.PodResizePending); c.Status != "" {
			t.Errorf("before: %+v", c)
		}
		changed := b.pod()
		changed.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("200m", "32Mi"), Limits: list("", "128Mi")}
		if _, err := b.client.CoreV1().Pods("ns").Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.sync()
		memory := func() string { return b.pod().Status.ContainerStatuses[0].Resources.Limits.Memory().String() }
		b.within(time.Second, "told", func() bool {
			return conditionOf(b.pod().Status, v1.PodResizePending).Reason == v1.PodReasonInfeasible
		})
		if memory() != "64Mi" {
			t.Errorf("status says %s of memory", memory())
		}
		b.runtime.Exit("a", 1)
		b.within(time.Minute, "resized", func() bool {
			return conditionOf(b.pod().Status, v1.PodResizePending).Status == "" && memory() == "128Mi" && b.running()
		})
		if config, _ := b.runtime.Container("a"); config.Linux.Resources.MemoryLimitInBytes != 128<<20 {
			t.Errorf("the container has %v", config.Linux.Resources)
		}
		if got := b.limits[len(b.limits)-1].CPUShares; got != 204 {
			t.Errorf("the pod's weight is %d, want 204", got)
		}
	})
}
