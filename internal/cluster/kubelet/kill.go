//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

// minGrace is what every container gets between its stop signal and SIGKILL (kubelet's
// minimumGracePeriodInSeconds).
const minGrace = 2 * time.Second

// grace is how long a container has to stop (setTerminationGracePeriod of pkg/kubelet/kuberuntime).
func grace(pod *v1.Pod, c *v1.Container, reason killReason) time.Duration {
	seconds := func(n int64) time.Duration { return time.Duration(n) * time.Second }
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return seconds(*pod.DeletionGracePeriodSeconds)
	case reason == killedByStartup && c.StartupProbe != nil && c.StartupProbe.TerminationGracePeriodSeconds != nil:
		return seconds(*c.StartupProbe.TerminationGracePeriodSeconds)
	case reason == killedByLiveness && c.LivenessProbe != nil && c.LivenessProbe.TerminationGracePeriodSeconds != nil:
		return seconds(*c.LivenessProbe.TerminationGracePeriodSeconds)
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return seconds(*pod.Spec.TerminationGracePeriodSeconds)
	}
	return minGrace
}

// left is what is left of a deleted pod's grace if it was being deleted before this program began, as the time of its end
// says; its containers have had the rest.
func (k *Kubelet) left(pod *v1.Pod, grace time.Duration) time.Duration {
	if pod.DeletionTimestamp == nil {
		return grace
	}
	asked := pod.DeletionTimestamp.Add(-grace) // in whole seconds
	if !asked.Before(k.begun.Truncate(time.Second)) {
		return grace
	}
	return min(grace, max(0, time.Until(pod.DeletionTimestamp.Time)))
}

// killContainer runs the preStop hook and stops a container within its grace period (killContainer of
// pkg/kubelet/kuberuntime). before, if not nil, is waited for in between: containers that must end first. A
// container that is gone is no error.
func (k *Kubelet) killContainer(ctx context.Context, pod *v1.Pod, a killAction, ips []string, before <-chan struct{}) error {
	left := k.left(pod, grace(pod, a.container, a.reason))
	message := a.message
	if message == "" {
		message = "Stopping container " + a.container.Name
	}
	k.monitor.Terminating(a.id.ID)
	k.event(pod, a.container, v1.EventTypeNormal, events.KillingContainer, message)
	start := time.Now()
	if a.container.Lifecycle != nil && a.container.Lifecycle.PreStop != nil && left > 0 {
		hooking, cancel := context.WithTimeout(ctx, left)
		if failure := k.hook(hooking, pod, a.container, a.id.ID, ips, a.container.Lifecycle.PreStop); failure != "" && ctx.Err() == nil {
			k.event(pod, a.container, v1.EventTypeWarning, events.FailedPreStopHook, "PreStopHook failed")
		}
		cancel()
	}
	if before != nil && left > 0 {
		select {
		case <-before:
		case <-time.After(left - time.Since(start)):
		case <-ctx.Done():
		}
	}
	left = max(left-time.Since(start), minGrace)
	err := k.cfg.Runtime.StopContainer(ctx, a.id.ID, int64(left.Seconds()))
	if err != nil && !crierrors.IsNotFound(err) {
		return fmt.Errorf("stopping container %s: %w", a.container.Name, err)
	}
	return nil
}

// withdrawLimit bounds waitWithdrawn, whatever a node is busy with; settleLimit bounds the wait for the data paths after
// a start, before which nobody can withdraw anything.
const (
	withdrawLimit = time.Second
	settleLimit   = 10 * time.Second
)

// waitWithdrawn holds back the stop signal of a deleted pod until no node sends it new connections: otherwise those
// which are underway in the meantime are refused, and every application needs a preStop hook that sleeps.
func (k *Kubelet) waitWithdrawn(ctx context.Context, pod *v1.Pod) {
	if k.cfg.Withdrawn == nil || pod.DeletionTimestamp == nil || pod.DeletionGracePeriodSeconds == nil {
		return
	}
	limit := min(withdrawLimit, time.Duration(*pod.DeletionGracePeriodSeconds)*time.Second)
	if limit == 0 { // deleted by force
		return
	}
	k.settled.Do(func() {
		if k.cfg.Settled == nil {
			return
		}
		settling, cancel := context.WithTimeout(ctx, settleLimit)
		defer cancel()
		if err := k.cfg.Settled(settling); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("stopping pods although not every node's data path is up", "err", err)
		}
	})
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := k.cfg.Withdrawn(waiting, pod.Namespace, pod.Name); err != nil && ctx.Err() == nil {
		k.podEvent(pod, v1.EventTypeWarning, "EndpointsNotWithdrawn",
			fmt.Sprintf("Stopped after %v although not every node has withdrawn the pod's endpoints: %v", limit, err))
	}
}

// killAll stops all running containers of a pod side by side; sidecars after the regular ones, the last first.
func (k *Kubelet) killAll(ctx context.Context, pod *v1.Pod, status *kubecontainer.PodStatus) error {
	ips := status.IPs
	var regular []killAction
	sidecars := make(map[string]killAction)
	for _, s := range status.ContainerStatuses {
		if s.State == kubecontainer.ContainerStateExited || s.State == kubecontainer.ContainerStateCreated {
			continue
		}
		spec := kubecontainer.GetContainerSpec(pod, s.Name)
		if spec == nil {
			spec = &v1.Container{Name: s.Name}
		}
		a := killAction{s.ID, spec, "", killedOtherwise}
		if podutil.IsRestartableInitContainer(spec) {
			sidecars[s.Name] = a
		} else {
			regular = append(regular, a)
		}
	}
	var all sync.WaitGroup
	errs := make(chan error, len(regular)+len(sidecars))
	kill := func(a killAction, before <-chan struct{}) <-chan struct{} {
		done := make(chan struct{})
		all.Go(func() {
			defer close(done)
			errs <- k.killContainer(ctx, pod, a, ips, before)
		})
		return done
	}
	var ended []<-chan struct{}
	for _, a := range regular {
		ended = append(ended, kill(a, nil))
	}
	before := join(ended)
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		if a, ok := sidecars[pod.Spec.InitContainers[i].Name]; ok {
			before = kill(a, before)
		}
	}
	all.Wait()
	close(errs)
	var joined error
	for err := range errs {
		joined = errors.Join(joined, err)
	}
	return joined
}

// join is closed when all of the channels are.
func join(channels []<-chan struct{}) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with the channels, which killAll waits for
		for _, c := range channels {
			<-c
		}
		close(done)
	}()
	return done
}

// podIP is where a pod's ports are: its own address or, in its node's namespace, the node's.
func (k *Kubelet) podIP(pod *v1.Pod, ips []string) string {
	if pod.Spec.HostNetwork || len(ips) == 0 {
		return k.cfg.Addresses[0].String()
	}
	return ips[0]
}
