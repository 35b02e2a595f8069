//go:build linux

package kubelet

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"

	"minato/internal/cluster/kubelet/cgroup"
	"minato/internal/cluster/kubelet/usage"
)

// usagePeriod is how often the use of CPU and memory is sampled. It is metrics-server's.
const usagePeriod = 15 * time.Second

// measured are the samples of the node's pods, and of their containers.
type measured struct{ pods, containers usage.Sampler }

func newMeasured(meter cgroup.Meter) *measured {
	return &measured{usage.Sampler{Read: meter.Read}, usage.Sampler{Read: meter.Read}}
}

// watchUsage samples until ctx ends.
func (k *Kubelet) watchUsage(ctx context.Context) {
	tick := time.NewTicker(usagePeriod)
	defer tick.Stop()
	for {
		pods, containers := k.groups(k.Pods())
		k.measured.pods.Take(time.Now(), pods)
		k.measured.containers.Take(time.Now(), containers)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// groups are the cgroups of pods, and of their containers that run.
func (k *Kubelet) groups(pods []*v1.Pod) (ofPods, ofContainers []usage.Group) {
	for _, pod := range pods {
		if pod.Status.StartTime == nil || terminal(pod.Status.Phase) {
			continue
		}
		ofPods = append(ofPods, usage.Group{Path: k.cgroup(identify(pod)), Since: pod.Status.StartTime.Time})
		for _, c := range runningContainers(pod) {
			ofContainers = append(ofContainers, usage.Group{Path: k.containerCgroup(pod, c), Since: c.State.Running.StartedAt.Time})
		}
	}
	return ofPods, ofContainers
}

func runningContainers(pod *v1.Pod) (running []*v1.ContainerStatus) {
	for _, list := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].State.Running != nil {
				running = append(running, &list[i])
			}
		}
	}
	return running
}

// containerCgroup is where the runtime puts a container.
func (k *Kubelet) containerCgroup(pod *v1.Pod, c *v1.ContainerStatus) string {
	return path.Join(k.cgroup(identify(pod)), kubecontainer.ParseContainerID(c.ContainerID).ID)
}

// Summary is what the node and its pods use, as of the last samples; what has none yet is sampled now. Of a virtual node
// that is what its pods use: it shares the machine with the others.
func (k *Kubelet) Summary() stats.Summary {
	pods := k.Pods()
	slices.SortFunc(pods, func(a, b *v1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	ofPods, ofContainers := k.groups(pods)
	now := time.Now()
	k.measured.pods.Fill(now, ofPods)
	k.measured.containers.Fill(now, ofContainers)
	summary := stats.Summary{Pods: []stats.PodStats{}}
	node := usage.Sample{At: now, Usage: cgroup.Usage{CPU: k.measured.pods.Total()}}
	for _, pod := range pods {
		use, ok := k.measured.pods.Last(k.cgroup(identify(pod)))
		if !ok {
			continue
		}
		summary.Pods = append(summary.Pods, k.podStats(pod, use))
		node.NanoCores += use.NanoCores
		node.Memory += use.Memory
		node.WorkingSet += use.WorkingSet
		node.RSS += use.RSS
		node.Faults += use.Faults
		node.Major += use.Major
		if use.At.Before(node.At) {
			node.At = use.At
		}
	}
	disk := diskStats(k.cfg.StateDir)
	summary.Node = stats.NodeStats{
		NodeName: k.cfg.NodeName, StartTime: metav1.NewTime(k.begun), CPU: cpuStats(node), Memory: memoryStats(node, k.capacity.Memory().Value()),
		Fs: disk, Runtime: &stats.RuntimeStats{ImageFs: disk, ContainerFs: disk},
	}
	return summary
}

func (k *Kubelet) podStats(pod *v1.Pod, use usage.Sample) stats.PodStats {
	p := stats.PodStats{
		PodRef:    stats.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)},
		StartTime: *pod.Status.StartTime, Containers: []stats.ContainerStats{},
		CPU: cpuStats(use), Memory: memoryStats(use, 0),
	}
	for _, c := range runningContainers(pod) {
		sample, ok := k.measured.containers.Last(k.containerCgroup(pod, c))
		if !ok {
			continue
		}
		var limit int64
		if c.Resources != nil {
			limit = c.Resources.Limits.Memory().Value()
		}
		p.Containers = append(p.Containers, stats.ContainerStats{
			Name: c.Name, StartTime: c.State.Running.StartedAt, CPU: cpuStats(sample), Memory: memoryStats(sample, limit),
		})
	}
	return p
}

func cpuStats(s usage.Sample) *stats.CPUStats {
	total := uint64(s.CPU.Nanoseconds())
	return &stats.CPUStats{Time: metav1.NewTime(s.At), UsageNanoCores: &s.NanoCores, UsageCoreNanoSeconds: &total}
}

// memoryStats has what is left of limit, where there is one.
func memoryStats(s usage.Sample, limit int64) *stats.MemoryStats {
	m := &stats.MemoryStats{
		Time: metav1.NewTime(s.At), UsageBytes: &s.Memory, WorkingSetBytes: &s.WorkingSet, RSSBytes: &s.RSS,
		PageFaults: &s.Faults, MajorPageFaults: &s.Major,
	}
	if limit > 0 {
		left := uint64(limit) - min(uint64(limit), s.WorkingSet)
		m.AvailableBytes = &left
	}
	return m
}

// diskStats are those of the file system below dir, nil where it cannot be asked.
func diskStats(dir string) *stats.FsStats {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil
	}
	block := uint64(fs.Bsize)
	available, capacity, used := fs.Bavail*block, fs.Blocks*block, (fs.Blocks-fs.Bfree)*block
	inodesUsed := fs.Files - fs.Ffree
	return &stats.FsStats{
		Time: metav1.Now(), AvailableBytes: &available, CapacityBytes: &capacity, UsedBytes: &used,
		InodesFree: &fs.Ffree, Inodes: &fs.Files, InodesUsed: &inodesUsed,
	}
}
