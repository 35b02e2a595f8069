//go:build linux

package kubelet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/cluster/kubelet/cgroup"
)

// newResizable is a bench with a pod of 100m CPU and 64Mi, which runs.
func newResizable(t *testing.T, policy ...v1.ContainerResizePolicy) *bench {
	t.Helper()
	pod := simple(v1.RestartPolicyAlways)
	pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("", "64Mi")}
	pod.Spec.Containers[0].ResizePolicy = policy
	return newRunning(t, pod)
}

// newRunning is a bench with a pod that runs.
func newRunning(t *testing.T, pod *v1.Pod) *bench {
	t.Helper()
	b := newBench(t, pod, 1)
	b.start()
	b.within(time.Second, "running", b.running)
	return b
}

// change changes the pod in the API, and tells nobody.
func (b *bench) change(f func(*v1.Pod)) {
	b.t.Helper()
	pod := b.pod()
	pod.Generation++
	f(pod)
	if _, err := b.client.CoreV1().Pods("ns").Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// ask changes the resources of the pod's container in the API.
func (b *bench) ask(cpu, memory string) {
	b.t.Helper()
	b.change(func(pod *v1.Pod) {
		pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list(cpu, "32Mi"), Limits: list("", memory)}
	})
	b.sync()
}

// has reports whether the container runs with resources, by its status and by the runtime.
func (b *bench) has(cpu, memory string) func() bool {
	return func() bool {
		s := b.pod().Status.ContainerStatuses[0]
		config, _ := b.runtime.Container("a")
		want := list(cpu, memory)
		return s.State.Running != nil && s.Resources.Limits.Memory().Cmp(*want.Memory()) == 0 && s.Resources.Requests.Cpu().Cmp(*want.Cpu()) == 0 &&
			config.Linux.Resources.MemoryLimitInBytes == want.Memory().Value()
	}
}

func (b *bench) pending(reason string) func() bool {
	return func() bool { return conditionOf(b.pod().Status, v1.PodResizePending).Reason == reason }
}

func TestAResizeNeedsNoRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResizable(t)
		defer func() { b.stop() }()
		b.ask("200m", "128Mi")
		b.within(time.Second, "resized", b.has("200m", "128Mi"))
		if n := len(b.runtime.Started()); n != 1 {
			t.Errorf("%d containers were started", n)
		}
		if got := b.limits[len(b.limits)-1]; got.CPUShares != 204 || got.Memory != 128<<20 {
			t.Errorf("the pod has %+v", got)
		}
		if b.events.count("ResizeStarted") != 1 || b.events.count("ResizeCompleted") != 1 {
			t.Errorf("events %q", b.events.texts)
		}
		for _, kind := range []v1.PodConditionType{v1.PodResizePending, v1.PodResizeInProgress} {
			if c := conditionOf(b.pod().Status, kind); c.Status != "" {
				t.Errorf("afterwards: %+v", c)
			}
		}
		b.rebirth() // which knows what the container has by now
		time.Sleep(2 * time.Second)
		if n := b.runtime.Calls("UpdateContainerResources"); n != 1 || !b.has("200m", "128Mi")() {
			t.Errorf("%d updates, status %+v", n, b.pod().Status.ContainerStatuses[0].Resources)
		}
	})
}

func TestAResizeRestartsWhoWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResizable(t, v1.ContainerResizePolicy{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer})
		defer b.stop()
		b.ask("200m", "64Mi")
		b.within(time.Second, "resized", b.has("200m", "64Mi"))
		if n := len(b.runtime.Started()); n != 1 {
			t.Errorf("a change of CPU started %d containers", n)
		}
		b.ask("200m", "128Mi")
		b.within(time.Minute, "resized", b.has("200m", "128Mi"))
		if n := len(b.runtime.Started()); n != 2 {
			t.Errorf("a change of memory: %d containers, want a second", n)
		}
	})
}

func TestAResizeBeyondTheNodeIsInfeasible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResizable(t)
		defer func() { b.stop() }()
		b.ask("100", "128Mi")
		b.within(time.Second, "told", b.pending(v1.PodReasonInfeasible))
		b.rebirth() // the wish is not the promise
		b.runtime.Exit("a", 1)
		time.Sleep(time.Minute)
		if !b.has("100m", "64Mi")() || !b.pending(v1.PodReasonInfeasible)() {
			t.Errorf("started again it has %+v", b.pod().Status)
		}
		if got := b.pod().Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "100m" {
			t.Errorf("allocated: %s", got)
		}
		b.ask("100m", "64Mi")
		b.within(time.Second, "content", b.pending(""))
	})
}

func TestAResizeWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResizable(t)
		defer b.stop()
		other := simple(v1.RestartPolicyAlways)
		other.Name, other.UID = "other", "other"
		other.Spec.Containers[0].Name = "b"
		other.Spec.Containers[0].Resources.Requests = list("7", "32Mi")
		b.k.update(b.ctx, other)
		time.Sleep(time.Second)
		b.ask("4", "64Mi") // of 8
		b.within(time.Second, "told", b.pending(v1.PodReasonDeferred))
		time.Sleep(time.Minute)
		if n := b.events.count("ResizeDeferred"); n != 1 || !b.has("100m", "64Mi")() {
			t.Errorf("told %d times, it has %+v", n, b.pod().Status.ContainerStatuses[0].Resources)
		}
		b.k.gone(other)
		b.within(10*time.Second, "resized", b.has("4", "64Mi"))
	})
}

func TestMemoryInUseIsNotTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newResizable(t)
		defer b.stop()
		b.k.used = func(string) (cgroup.Usage, error) { return cgroup.Usage{Memory: 50 << 20}, nil }
		progress := func() v1.PodCondition { return conditionOf(b.pod().Status, v1.PodResizeInProgress) }
		b.ask("100m", "40Mi")
		b.within(time.Second, "told", func() bool { return progress().Reason == v1.PodReasonError })
		if n := b.runtime.Calls("UpdateContainerResources"); n != 0 {
			t.Errorf("%d updates", n)
		}
		b.ask("100m", "60Mi")
		b.within(10*time.Second, "resized", b.has("100m", "60Mi"))
		if c := progress(); c.Status != "" {
			t.Errorf("afterwards: %+v", c)
		}
	})
}
