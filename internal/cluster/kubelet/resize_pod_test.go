//go:build linux

package kubelet

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"minato/internal/cluster/kubelet/cgroup"
)

// newSharing is a bench with a pod of 500m CPU and 64Mi as a whole, whose container has limits of its own or the pod's.
func newSharing(t *testing.T, own v1.ResourceList, policy ...v1.ContainerResizePolicy) *bench {
	t.Helper()
	pod := simple(v1.RestartPolicyAlways)
	pod.Spec.Resources = &v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("500m", "64Mi")}
	pod.Spec.Containers[0].Resources.Limits = own
	pod.Spec.Containers[0].ResizePolicy = policy
	return newRunning(t, pod)
}

// wish changes the limits of the whole pod in the API, and tells nobody.
func (b *bench) wish(cpu, memory string) {
	b.t.Helper()
	b.change(func(pod *v1.Pod) {
		pod.Spec.Resources = &v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list(cpu, memory)}
	})
}

// share is what the pod's cgroup has.
func (b *bench) share() cgroup.Limits {
	b.t.Helper()
	l, err := b.k.limited(b.k.cgroup(b.id))
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// shares reports whether the pod runs with limits as a whole, by its status and by its cgroup.
func (b *bench) shares(cpu, memory string) func() bool {
	return func() bool {
		want, s := list(cpu, memory), b.pod().Status.Resources
		return b.share().CPUQuota == want.Cpu().MilliValue()*100 && b.share().Memory == want.Memory().Value() &&
			s.Limits.Cpu().Cmp(*want.Cpu()) == 0 && s.Limits.Memory().Cmp(*want.Memory()) == 0
	}
}

func (b *bench) progress() v1.PodCondition {
	return conditionOf(b.pod().Status, v1.PodResizeInProgress)
}

// writes are the changes of the pod's status since the bench began.
func (b *bench) writes() (all []v1.PodStatus) {
	b.t.Helper()
	for _, action := range b.client.Actions() {
		if patch, ok := action.(clienttesting.PatchAction); ok && patch.GetSubresource() == "status" && patch.GetResource().Resource == "pods" {
			var pod v1.Pod
			if err := json.Unmarshal(patch.GetPatch(), &pod); err != nil {
				b.t.Fatal(err)
			}
			all = append(all, pod.Status)
		}
	}
	return all
}

func TestAWholePodGrowsAtOnceAndWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer b.stop()
		b.wish("800m", "128Mi")
		b.sync()
		b.within(time.Second, "resized", b.shares("800m", "128Mi"))
		if n := len(b.runtime.Started()); n != 1 {
			t.Errorf("%d containers were started", n)
		}
		if b.events.count("ResizeStarted") != 1 || b.events.count("ResizeCompleted") != 1 {
			t.Errorf("events %q", b.events.texts)
		}
		if c := b.progress(); c.Status != "" {
			t.Errorf("afterwards: %+v", c)
		}
	})
}

func TestAContainerWithoutALimitFollowsItsPods(t *testing.T) {
	for name, c := range map[string]struct {
		own                    v1.ResourceList
		quota, memory, updates int64
	}{
		"no limits":             {nil, 80_000, 128 << 20, 1},
		"a limit of CPU":        {list("200m", ""), 20_000, 128 << 20, 1},
		"limits of both":        {list("200m", "48Mi"), 20_000, 48 << 20, 0},
		"a limit that is none":  {list("0", "48Mi"), 80_000, 48 << 20, 1},
		"a limit of the memory": {list("", "48Mi"), 80_000, 48 << 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newSharing(t, c.own)
				defer b.stop()
				b.wish("800m", "128Mi")
				b.sync()
				b.within(time.Second, "resized", b.shares("800m", "128Mi"))
				config, _ := b.runtime.Container("a")
				if r := config.Linux.Resources; r.CpuQuota != c.quota || r.MemoryLimitInBytes != c.memory {
					t.Errorf("the container has %v", r)
				}
				if n := b.runtime.Calls("UpdateContainerResources"); int64(n) != c.updates {
					t.Errorf("%d updates", n)
				}
			})
		})
	}
}

func TestAContainerThatWantsARestartHasItForItsPodsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil, v1.ContainerResizePolicy{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer})
		defer b.stop()
		b.wish("800m", "64Mi")
		b.sync()
		b.within(time.Second, "resized", b.shares("800m", "64Mi"))
		if n := len(b.runtime.Started()); n != 1 {
			t.Errorf("a change of CPU started %d containers", n)
		}
		b.wish("800m", "128Mi")
		b.sync()
		b.within(time.Minute, "restarted", func() bool { return b.shares("800m", "128Mi")() && len(b.runtime.Started()) == 2 })
	})
}

// The kernel's version 1 refuses what is against this order.
func TestAContainerNeverHasMoreThanItsPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer b.stop()
		b.k.used = func(string) (cgroup.Usage, error) { return cgroup.Usage{Memory: 1 << 20}, nil }
		limit := b.k.limit
		b.k.limit = func(path string, l cgroup.Limits) error {
			config, _ := b.runtime.Container("a")
			if r := config.Linux.Resources; r.MemoryLimitInBytes > min(b.share().Memory, l.Memory) || r.CpuQuota > min(b.share().CPUQuota, l.CPUQuota) {
				t.Errorf("the pod goes from %+v to %+v when the container has %v", b.share(), l, r)
			}
			return limit(path, l)
		}
		for _, wish := range []struct{ cpu, memory string }{{"800m", "128Mi"}, {"300m", "48Mi"}, {"900m", "40Mi"}, {"200m", "90Mi"}} {
			b.wish(wish.cpu, wish.memory)
			b.sync()
			b.within(time.Second, "resized", b.shares(wish.cpu, wish.memory))
		}
	})
}

func TestMemoryInUseIsNotTakenFromAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, list("", "32Mi"))
		defer func() { b.stop() }()
		var whole atomic.Uint64
		whole.Store(60 << 20)
		used := func(path string) (cgroup.Usage, error) {
			if path == b.k.cgroup(b.id) {
				return cgroup.Usage{Memory: whole.Load()}, nil
			}
			return cgroup.Usage{Memory: 1 << 20}, nil
		}
		b.k.used = used
		b.wish("500m", "48Mi")
		b.sync()
		refused := func() bool { return b.progress().Reason == v1.PodReasonError }
		b.within(time.Second, "told", refused)
		if m := b.progress().Message; m != "cannot decrease memory limits: attempting to set pod memory limit (50331648) below current usage (62914560)" {
			t.Errorf("told %q", m)
		}
		since := b.progress().LastTransitionTime
		b.runtime.Exit("a", 1) // what starts again takes nothing away either
		b.within(time.Minute, "restarted", b.restartedTo(1))
		b.stop()
		b.runtime.Revive()
		b.build()
		b.k.used = used // as for the life before
		b.start()
		time.Sleep(time.Minute)
		if !b.shares("500m", "64Mi")() || !refused() || !since.Equal(new(b.progress().LastTransitionTime)) {
			t.Errorf("the pod has %+v, and says %+v", b.share(), b.pod().Status)
		}
		if n := b.events.count("ResizeError"); n != 2 {
			t.Errorf("told %d times, want once in each life", n)
		}
		whole.Store(40 << 20)
		b.within(10*time.Second, "resized", b.shares("500m", "48Mi"))
		if c := b.progress(); c.Status != "" || b.events.count("ResizeCompleted") != 1 {
			t.Errorf("afterwards: %+v, %q", c, b.events.texts)
		}
	})
}

func TestANewLifeSetsAPodsLimitsOnceAndSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer func() { b.stop() }()
		time.Sleep(time.Second)
		b.cgroups.Store(b.k.cgroup(b.id), cgroup.Limits{CPUShares: 2, CPUQuota: 10_000, CPUPeriod: 100_000, Memory: 128 << 20})
		events, writes := b.events.count(""), len(b.writes())
		b.stop()
		b.runtime.Revive()
		b.build()
		b.k.used = func(string) (cgroup.Usage, error) { return cgroup.Usage{Memory: 1 << 20}, nil }
		b.limits = nil
		b.start()
		time.Sleep(time.Minute)
		if !b.shares("500m", "64Mi")() || len(b.limits) != 2 { // raised, then as it is to be
			t.Errorf("the pod was given %+v", b.limits)
		}
		if b.events.count("") != events || len(b.writes()) != writes || b.runtime.Calls("UpdateContainerResources") != 0 {
			t.Errorf("events %q, writes %+v", b.events.texts[events:], b.writes()[writes:])
		}
	})
}

func TestAWishWhileNobodyIsThereIsNotThePromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer func() { b.stop() }()
		b.stop()
		b.change(func(pod *v1.Pod) {
			pod.Spec.Resources = &v1.ResourceRequirements{Requests: list("100", "32Mi"), Limits: list("100", "64Mi")} // of 8
		})
		b.rebirth()
		b.within(time.Second, "told", b.pending(v1.PodReasonInfeasible))
		time.Sleep(time.Minute)
		if s := b.pod().Status; !b.shares("500m", "64Mi")() || s.AllocatedResources.Cpu().String() != "100m" {
			t.Errorf("the pod has %+v, and says %+v", b.share(), s)
		}
	})
}

func TestTheStartOfAPodTellsItsResourcesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer b.stop()
		time.Sleep(time.Minute)
		told := 0
		for _, s := range b.writes() {
			if s.Resources != nil || s.AllocatedResources != nil {
				told++
			}
		}
		if told != 1 {
			t.Errorf("told %d times: %+v", told, b.writes())
		}
	})
}

func TestResourcesOfAPodAreItsOwnOrThoseOfItsContainers(t *testing.T) {
	for name, c := range map[string]struct {
		pod, a, b        v1.ResourceRequirements
		requests, limits v1.ResourceList
	}{
		"nothing": {},
		"of containers": {
			a:        v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("200m", "64Mi")},
			b:        v1.ResourceRequirements{Requests: list("50m", ""), Limits: list("", "16Mi")}, // so that CPU has no limit
			requests: list("150m", "32Mi"), limits: list("", "80Mi"),
		},
		"of the pod": {
			pod:      v1.ResourceRequirements{Requests: list("1", "64Mi"), Limits: list("2", "128Mi")},
			a:        v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("200m", "64Mi")},
			requests: list("1", "64Mi"), limits: list("2", "128Mi"),
		},
		"of both": {
			pod:      v1.ResourceRequirements{Limits: list("2", "")},
			a:        v1.ResourceRequirements{Requests: list("100m", "32Mi"), Limits: list("200m", "64Mi")},
			requests: list("100m", "32Mi"), limits: list("2", ""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := specified("a b", v1.RestartPolicyAlways)
			pod.Spec.Containers[0].Resources, pod.Spec.Containers[1].Resources = c.a, c.b
			if c.pod.Limits != nil {
				pod.Spec.Resources = &c.pod
			}
			s := report{pod: pod, runtime: observed(pod, "none"), probes: allWell}.status()
			for what, pair := range map[string][2]v1.ResourceList{
				"allocated": {s.AllocatedResources, c.requests}, "requests": {s.Resources.Requests, c.requests}, "limits": {s.Resources.Limits, c.limits},
			} {
				if got, want := text(pair[0]), text(pair[1]); got != want {
					t.Errorf("%s are %s, want %s", what, got, want)
				}
			}
		})
	}
}

func text(l v1.ResourceList) string {
	return strings.Join([]string{l.Cpu().String(), l.Memory().String()}, " ")
}

func TestAFailureIsTriedAgainEachFiveSecondsAndNoSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newSharing(t, nil)
		defer b.stop()
		var uses atomic.Uint64
		b.k.used = func(string) (cgroup.Usage, error) { return cgroup.Usage{Memory: 60<<20 + uses.Add(1)}, nil }
		b.wish("500m", "48Mi")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			b.sync() // as the watch does after each write of the status
		}
		if n := uses.Load(); n < 2*11 || n > 2*13 { // of the pod and of its container
			t.Errorf("tried %d times in a minute", n/2)
		}
	})
}
