//go:build linux

package kubelet

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"minato/internal/cluster/kubelet/cgroup"
)

func list(cpu, memory string) v1.ResourceList {
	l := v1.ResourceList{}
	if cpu != "" {
		l[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func TestRequestsAndLimitsBecomeCgroupSettings(t *testing.T) {
	for name, c := range map[string]struct {
		requests, limits, pod v1.ResourceList
		shares, quota, memory int64 // of the container
		together              cgroup.Limits
	}{
		"nothing": {nil, nil, nil, 2, 0, 0, cgroup.Limits{CPUShares: 2, CPUPeriod: 100_000}},
		"requests alone": {list("250m", "32Mi"), nil, nil, 256, 0, 0,
			cgroup.Limits{CPUShares: 256, CPUPeriod: 100_000}},
		"limits": {list("100m", "32Mi"), list("500m", "64Mi"), nil, 102, 50_000, 64 << 20,
			cgroup.Limits{CPUShares: 102, CPUQuota: 50_000, CPUPeriod: 100_000, Memory: 64 << 20}},
		"a tiny limit": {nil, list("1m", ""), nil, 2, 1000, 0,
			cgroup.Limits{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100_000}},
		"limits of the pod": {nil, nil, list("1", "128Mi"), 1024, 100_000, 128 << 20,
			cgroup.Limits{CPUShares: 2, CPUQuota: 100_000, CPUPeriod: 100_000, Memory: 128 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := simple(v1.RestartPolicyAlways)
				pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: c.requests, Limits: c.limits}
				if c.pod != nil {
					pod.Spec.Resources = &v1.ResourceRequirements{Limits: c.pod}
				}
				b := newBench(t, pod, 1)
				b.start()
				defer b.stop()
				b.within(time.Second, "running", b.running)
				config, _ := b.runtime.Container("a")
				if r := config.Linux.Resources; r.CpuShares != c.shares || r.CpuQuota != c.quota || r.MemoryLimitInBytes != c.memory {
					t.Errorf("the container has %v", r)
				}
				if len(b.limits) != 1 || b.limits[0] != c.together {
					t.Errorf("the pod has %+v, want %+v", b.limits, c.together)
				}
			})
		})
	}
}

func TestWhoAsksForLessMemoryThanOthersEndsFirst(t *testing.T) {
	score := func(requests, limits v1.ResourceList) (score int64) {
		synctest.Test(t, func(t *testing.T) {
			pod := simple(v1.RestartPolicyAlways)
			pod.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: requests, Limits: limits}
			b := newBench(t, pod, 1)
			b.k.capacity = list("8", "8Gi")
			b.start()
			defer b.stop()
			b.within(time.Second, "running", b.running)
			config, _ := b.runtime.Container("a")
			score = config.Linux.Resources.OomScoreAdj
		})
		return score
	}
	guaranteed := list("1", "1Gi")
	if g, b, e := score(guaranteed, guaranteed), score(list("", "4Gi"), nil), score(nil, nil); g != -997 || b != 500 || e != 1000 {
		t.Errorf("guaranteed %d, burstable %d, best effort %d; want -997, 500, 1000", g, b, e)
	}
}
