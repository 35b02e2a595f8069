//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"minato/internal/cluster/kubelet/volumes"
)

// storagePeriod is how often disk use is measured, of pods with a limit alone, because it takes a walk through their files.
const storagePeriod = 10 * time.Second

// verdict is why a node ends a pod.
type verdict struct{ event, reason, message string }

// verdict is that of the pod's deadline or of its use of the disk, nil if it may go on.
func (w *worker) verdict() *verdict {
	w.mu.Lock()
	excess := w.excess
	w.mu.Unlock()
	switch {
	case excess != "":
		return &verdict{v1.EventTypeWarning, "Evicted", excess}
	case w.deadline() > 0 && time.Since(w.status.StartTime.Time) >= w.deadline():
		return &verdict{v1.EventTypeNormal, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}
	}
	return nil
}

// hurried is the pod with the grace that the verdict leaves it: who fills the disk has a second.
func (why *verdict) hurried(pod *v1.Pod) *v1.Pod {
	if why == nil || why.reason != "Evicted" {
		return pod
	}
	second := int64(1)
	pod = pod.DeepCopy()
	pod.DeletionGracePeriodSeconds = &second
	return pod
}

// watchStorage ends pods that use more of the disk than they may (localStorageEviction of pkg/kubelet/eviction), until
// ctx ends.
func (k *Kubelet) watchStorage(ctx context.Context) {
	tick := time.NewTicker(storagePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, pod := range k.podsWithShare() {
			if pod.DeletionTimestamp != nil || !limitsStorage(pod) {
				continue
			}
			excess, err := k.overuse(ctx, pod)
			if err != nil && ctx.Err() == nil {
				k.cfg.Log.Warn("measuring a pod's use of the disk", "pod", podFormat(pod), "err", err)
			}
			if excess != "" {
				k.evict(pod, excess)
			}
		}
	}
}

func (k *Kubelet) evict(pod *v1.Pod, excess string) {
	k.mu.Lock()
	w := k.workers[pod.UID]
	k.mu.Unlock()
	if w == nil {
		return
	}
	w.mu.Lock()
	w.excess = excess
	w.mu.Unlock()
	w.poke()
}

// limitsStorage reports whether there is a limit to look after.
func limitsStorage(pod *v1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			return true
		}
	}
	_, limited := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[v1.ResourceEphemeralStorage]
	return limited
}

// overuse says what a pod uses too much of, with upstream's texts; empty if nothing.
func (k *Kubelet) overuse(ctx context.Context, pod *v1.Pod) (string, error) {
	var total int64
	for i := range pod.Spec.Volumes {
		spec := &pod.Spec.Volumes[i]
		if spec.EmptyDir == nil {
			continue
		}
		used, err := volumes.Usage(k.volumes.Path(pod, spec))
		if err != nil {
			return "", err
		}
		if limit := spec.EmptyDir.SizeLimit; limit != nil && limit.Sign() > 0 && used > limit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", spec.Name, limit.String()), nil
		}
		if spec.EmptyDir.Medium != v1.StorageMediumMemory {
			total += used
		}
	}
	limit, limited := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[v1.ResourceEphemeralStorage]
	if !limited {
		return "", nil
	}
	layers, err := k.layers(ctx, pod)
	if err != nil {
		return "", err
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		used, err := volumes.Usage(filepath.Join(k.logDir(identify(pod)), c.Name))
		if err != nil {
			return "", err
		}
		used += layers[c.Name]
		if own, ok := c.Resources.Limits[v1.ResourceEphemeralStorage]; ok && used > own.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, own.String()), nil
		}
		total += used
	}
	if total > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String()), nil
	}
	return "", nil
}

// layers are the bytes that each container of a pod has written beside its volumes.
func (k *Kubelet) layers(ctx context.Context, pod *v1.Pod) (map[string]int64, error) {
	stats, err := k.cfg.Runtime.ListContainerStats(ctx, &cri.ContainerStatsFilter{
		LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.UID)},
	})
	if err != nil {
		return nil, fmt.Errorf("statistics of containers: %w", err)
	}
	used := make(map[string]int64)
	for _, s := range stats {
		used[s.GetAttributes().GetMetadata().GetName()] += int64(s.GetWritableLayer().GetUsedBytes().GetValue())
	}
	return used, nil
}
