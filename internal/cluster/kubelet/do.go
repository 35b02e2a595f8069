//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"

	"minato/internal/cluster/kubelet/probe"
)

// reasonCrashLoop is why a container waits that ended too often.
const reasonCrashLoop = "CrashLoopBackOff"

// do carries a plan out. It returns how long it is to wait until what is in back-off may be tried again. Failures to
// start a container are in w.waiting and no error.
func (w *worker) do(ctx context.Context, runtime *kubecontainer.PodStatus, a actions) (next time.Duration, err error) {
	if a.killPod {
		if err := w.killPod(ctx, runtime, a); err != nil || !a.createSandbox {
			return 0, err
		}
	}
	for _, kill := range a.kill {
		if err := w.k.killContainer(ctx, w.pod, kill, runtime.IPs, nil); err != nil {
			return 0, err
		}
	}
	if len(a.resize) > 0 || a.limits {
		next = w.applyResize(ctx, a.resize)
	}
	if len(a.start) == 0 && !a.createSandbox {
		return next, nil
	}
	p, err := w.sandbox(ctx, runtime, a)
	if err != nil {
		return 0, err
	}
	for _, start := range a.start {
		wait, started := w.start(ctx, start.container, p)
		if wait > 0 {
			next = earlier(next, wait)
		}
		if !started && start.init && !podutil.IsRestartableInitContainer(start.container) {
			break
		}
	}
	return next, nil
}

// killPod stops everything. Init containers go for good where a new sandbox is to come: they must run again in it.
func (w *worker) killPod(ctx context.Context, runtime *kubecontainer.PodStatus, a actions) error {
	if a.createSandbox && a.sandboxID != "" {
		w.k.podEvent(w.pod, v1.EventTypeNormal, events.SandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	if err := w.k.killAll(ctx, w.pod, runtime); err != nil {
		return err
	}
	if err := w.k.stopSandboxes(ctx, runtime); err != nil || !a.createSandbox {
		return err
	}
	for i := range w.pod.Spec.InitContainers {
		for _, s := range runtime.ContainerStatuses {
			if s.Name != w.pod.Spec.InitContainers[i].Name {
				continue
			}
			if err := w.k.cfg.Runtime.RemoveContainer(ctx, s.ID.ID); err != nil {
				return fmt.Errorf("removing init container %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// sandbox is the pod's sandbox, made if the plan says so.
func (w *worker) sandbox(ctx context.Context, runtime *kubecontainer.PodStatus, a actions) (place, error) {
	config, err := w.k.sandboxConfig(ctx, w.pod, a.attempt)
	if err != nil {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.FailedCreatePodSandBox, "Failed to create pod sandbox: "+err.Error())
		return place{}, err
	}
	p := place{sandboxID: a.sandboxID, sandbox: config, ips: runtime.IPs, volumes: w.volumes, status: runtime}
	if !a.createSandbox {
		if w.podResized() { // and cannot be yet; what is to start may need more all the same
			if err := w.raiseLimits(); err != nil {
				w.k.cfg.Log.Warn("the pod's limits stay as they are", "pod", podFormat(w.pod), "err", err)
			}
		}
		return p, nil
	}
	ctx = context.WithoutCancel(ctx) // half a sandbox is more trouble than a whole one
	if err := w.giveLimits(); err != nil {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.FailedToCreatePodContainer, "unable to ensure pod container exists: "+err.Error())
		return place{}, err
	}
	p.sandboxID, err = w.k.cfg.Runtime.RunPodSandbox(ctx, config, "")
	if err != nil {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.FailedCreatePodSandBox, "Failed to create pod sandbox: "+err.Error())
		return place{}, fmt.Errorf("creating the sandbox: %w", err)
	}
	response, err := w.k.cfg.Runtime.PodSandboxStatus(ctx, p.sandboxID, false)
	if err != nil {
		w.k.podEvent(w.pod, v1.EventTypeWarning, events.FailedStatusPodSandBox, "Unable to get pod sandbox status: "+err.Error())
		return place{}, fmt.Errorf("status of the new sandbox: %w", err)
	}
	markHostNetwork(response.GetStatus())
	p.ips = sandboxIPs(response.GetStatus())
	// The address is known now; a pull may take long.
	now := *runtime
	now.IPs, now.SandboxStatuses, now.ActiveContainerStatuses = p.ips, []*cri.PodSandboxStatus{response.GetStatus()}, nil
	w.report(&now, false)
	return p, nil
}

// start starts one container unless it is too early. It reports whether it did and, if not, how long to wait.
func (w *worker) start(ctx context.Context, c *v1.Container, p place) (wait time.Duration, started bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	hash := kubecontainer.HashContainer(c)
	if why, ok := w.waiting[c.Name]; ok && why.hash == hash && time.Now().Before(why.until) {
		return time.Until(why.until), false // woken for another reason
	}
	err := w.backOff(c, p.status)
	if err == nil {
		err = w.k.startContainer(ctx, w.pod, c, p)
	}
	var why *startError
	switch {
	case err == nil:
		delete(w.waiting, c.Name)
		return 0, true
	case !errors.As(err, &why):
		why = &startError{reason: reasonRun, message: err.Error()}
	}
	if why.retry.IsZero() {
		why.retry = time.Now().Add(backOffBase)
	}
	w.waiting[c.Name] = waiting{why.reason, why.message, why.retry, hash}
	return max(time.Until(why.retry), time.Millisecond), false
}

// backOff refuses a container that has ended too lately, as a *startError: nothing the first time, then 10 s,
// doubled up to 300 s, and nothing again after 10 quiet minutes (doBackOff of pkg/kubelet/kuberuntime).
func (w *worker) backOff(c *v1.Container, status *kubecontainer.PodStatus) error {
	ended := lastExited(status, c.Name)
	if ended == nil {
		return nil
	}
	key := fmt.Sprintf("%s_%s_%x", w.pod.UID, c.Name, kubecontainer.HashContainer(c))
	if !w.k.restarts.IsInBackOffSince(key, ended.FinishedAt) {
		w.k.restarts.Next(key, ended.FinishedAt)
		return nil
	}
	delay := w.k.restarts.Get(key)
	w.k.event(w.pod, c, v1.EventTypeWarning, events.BackOffStartContainer, fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, podFormat(w.pod)))
	message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, c.Name, podFormat(w.pod))
	return &startError{reasonCrashLoop, message, ended.FinishedAt.Add(delay)}
}

func lastExited(status *kubecontainer.PodStatus, name string) *kubecontainer.Status {
	for _, s := range status.ContainerStatuses {
		if s.Name == name && s.State == kubecontainer.ContainerStateExited {
			return s
		}
	}
	return nil
}

// watch has the probes follow what runs.
func (w *worker) watch(runtime *kubecontainer.PodStatus) {
	for _, s := range runtime.ContainerStatuses {
		spec := kubecontainer.GetContainerSpec(w.pod, s.Name)
		if s.State != kubecontainer.ContainerStateRunning || spec == nil {
			w.k.monitor.Forget(s.ID.ID)
			continue
		}
		c := probe.Container{
			ID: s.ID.ID, Pod: w.pod, Spec: spec, PodIP: w.k.podIP(w.pod, runtime.IPs), StartedAt: s.StartedAt,
		}
		all := append(w.pod.Status.ContainerStatuses, w.pod.Status.InitContainerStatuses...)
		if before := find(all, s.Name); before != nil && before.ContainerID == s.ID.String() {
			c.WasStarted, c.WasReady = isTrue(before.Started), before.Ready
		}
		w.k.monitor.Watch(c)
	}
}

// prune removes what the pod does not need any more: of each container all instances but the newest two, whose
// logs can be asked for, and sandboxes without containers.
func (w *worker) prune(ctx context.Context, runtime *kubecontainer.PodStatus) {
	ctx = context.WithoutCancel(ctx)
	seen := make(map[string]int)
	for _, s := range runtime.ContainerStatuses {
		seen[s.Name]++
		if seen[s.Name] > 2 && s.State == kubecontainer.ContainerStateExited {
			if err := w.k.cfg.Runtime.RemoveContainer(ctx, s.ID.ID); err != nil {
				w.k.cfg.Log.Warn("removing an old container", "pod", podFormat(w.pod), "container", s.Name, "err", err)
				continue
			}
			if err := w.k.removeTraces(w.id, s); err != nil {
				w.k.cfg.Log.Warn("removing what an old container has left", "pod", podFormat(w.pod), "container", s.Name, "err", err)
			}
		}
	}
	for i, s := range runtime.SandboxStatuses {
		if i == 0 || s.State == cri.PodSandboxState_SANDBOX_READY || w.k.inUse(ctx, s.Id) {
			continue
		}
		if err := w.k.cfg.Runtime.RemovePodSandbox(ctx, s.Id); err != nil {
			w.k.cfg.Log.Warn("removing an old sandbox", "pod", podFormat(w.pod), "err", err)
		}
	}
}

// removeTraces removes the logs of a container that is removed, the rotated ones too, and its termination message.
func (k *Kubelet) removeTraces(id identity, s *kubecontainer.Status) error {
	attempt := strconv.Itoa(s.RestartCount)
	log := filepath.Join(k.logDir(id), s.Name, attempt+".log")
	files, err := filepath.Glob(log + ".*")
	for _, file := range append(files, log, filepath.Join(k.volumes.PodDir(id.uid), "containers", s.Name, attempt)) {
		if removeErr := os.Remove(file); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

// inUse reports whether a sandbox holds containers, or may.
func (k *Kubelet) inUse(ctx context.Context, sandbox string) bool {
	containers, err := k.cfg.Runtime.ListContainers(ctx, &cri.ContainerFilter{PodSandboxId: sandbox})
	return err != nil || len(containers) > 0
}

// stopSandboxes tears down the sandboxes of a pod, and with them its network.
func (k *Kubelet) stopSandboxes(ctx context.Context, runtime *kubecontainer.PodStatus) error {
	for _, s := range runtime.SandboxStatuses {
		if err := k.cfg.Runtime.StopPodSandbox(ctx, s.Id); err != nil {
			return fmt.Errorf("stopping the sandbox: %w", err)
		}
	}
	return nil
}

// ready reports whether a sandbox is up.
func ready(runtime *kubecontainer.PodStatus) bool {
	for _, s := range runtime.SandboxStatuses {
		if s.State == cri.PodSandboxState_SANDBOX_READY {
			return true
		}
	}
	return false
}
