//go:build linux

package kubelet

import (
	"net/netip"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"minato/internal/cluster/kubelet/probe"
)

func conditionOf(s v1.PodStatus, kind v1.PodConditionType) v1.PodCondition {
	_, c := podutil.GetPodConditionFromList(s.Conditions, kind)
	if c == nil {
		return v1.PodCondition{}
	}
	return *c
}

func TestAWaitingContainerSaysWhy(t *testing.T) {
	pod := specified("a b", v1.RestartPolicyAlways)
	r := report{pod: pod, runtime: observed(pod, "a:running b:exit1"), probes: allWell, waiting: map[string]waiting{"b": {reason: "CrashLoopBackOff", message: "later"}}}
	s := r.status()
	b := s.ContainerStatuses[1]
	if b.State.Waiting == nil || b.State.Waiting.Reason != "CrashLoopBackOff" || b.LastTerminationState.Terminated == nil || b.LastTerminationState.Terminated.ExitCode != 1 {
		t.Errorf("status %+v", b)
	}
	if c := conditionOf(s, v1.ContainersReady); c.Status != v1.ConditionFalse || c.Message != "containers with unready status: [b]" {
		t.Errorf("condition %+v", c)
	}
}

func TestContainersOfANewPodAreBeingCreatedOrInitialized(t *testing.T) {
	for containers, want := range map[string]string{"a": "ContainerCreating", "i | a": "PodInitializing"} {
		pod := specified(containers, v1.RestartPolicyAlways)
		s := report{pod: pod, runtime: observed(pod, "none"), probes: allWell}.status()
		if w := s.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != want {
			t.Errorf("%s: %+v, want %s", containers, s.ContainerStatuses[0], want)
		}
		if c := conditionOf(s, v1.PodReadyToStartContainers); c.Status != v1.ConditionFalse {
			t.Errorf("%s: %+v", containers, c)
		}
	}
}

func TestReadinessIsTheProbesAndTheGates(t *testing.T) {
	for name, c := range map[string]struct {
		state    probe.State
		gates    []v1.PodConditionType
		others   []v1.PodCondition
		ready    v1.ConditionStatus
		reason   string
		unopened bool
	}{
		"not watched yet":  {probe.State{}, nil, nil, v1.ConditionFalse, "ContainersNotReady", true},
		"starting":         {probe.State{Alive: true}, nil, nil, v1.ConditionFalse, "ContainersNotReady", true},
		"not ready":        {probe.State{Started: true, Alive: true}, nil, nil, v1.ConditionFalse, "ContainersNotReady", false},
		"ready":            {probe.State{Started: true, Ready: true, Alive: true}, nil, nil, v1.ConditionTrue, "", false},
		"a gate is absent": {probe.State{Started: true, Ready: true, Alive: true}, []v1.PodConditionType{"x/y"}, nil, v1.ConditionFalse, "ReadinessGatesNotReady", false},
		"a gate is open":   {probe.State{Started: true, Ready: true, Alive: true}, []v1.PodConditionType{"x/y"}, []v1.PodCondition{{Type: "x/y", Status: v1.ConditionTrue}}, v1.ConditionTrue, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := specified("a", v1.RestartPolicyAlways)
			for _, gate := range c.gates {
				pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, v1.PodReadinessGate{ConditionType: gate})
			}
			pod.Status.Conditions = c.others
			s := report{pod: pod, runtime: observed(pod, "a:running"), probes: func(string) (probe.State, bool) { return c.state, true }}.status()
			if got := conditionOf(s, v1.PodReady); got.Status != c.ready || got.Reason != c.reason {
				t.Errorf("condition %+v", got)
			}
			if started := s.ContainerStatuses[0].Started; *started == c.unopened {
				t.Errorf("started is %v", *started)
			}
			if len(c.others) > 0 && conditionOf(s, "x/y").Status != v1.ConditionTrue {
				t.Error("a condition of another is lost")
			}
		})
	}
}

func TestAConditionKeepsItsTimeUntilItChanges(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	r := report{pod: pod, runtime: observed(pod, "a:running"), probes: allWell}
	first := r.status()
	past := metav1.NewTime(time.Now().Add(-time.Hour))
	for i := range first.Conditions {
		first.Conditions[i].LastTransitionTime = past
	}
	r.old = first
	if c := conditionOf(r.status(), v1.PodReady); !c.LastTransitionTime.Equal(&past) {
		t.Errorf("time of an unchanged condition is %v", c.LastTransitionTime)
	}
	r.probes = func(string) (probe.State, bool) { return probe.State{Started: true, Alive: true}, true }
	if c := conditionOf(r.status(), v1.PodReady); c.LastTransitionTime.Equal(&past) {
		t.Error("time of a changed condition is that of before")
	}
}

func TestAddresses(t *testing.T) {
	node := []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00::11")}
	pod := specified("a", v1.RestartPolicyAlways)
	runtime := observed(pod, "a:running")
	runtime.IPs = []string{"10.244.1.2", "fd01::2"}
	s := report{pod: pod, runtime: runtime, probes: allWell, hostIPs: node}.status()
	if s.HostIP != "172.30.0.11" || len(s.HostIPs) != 2 || s.PodIP != "10.244.1.2" || len(s.PodIPs) != 2 {
		t.Errorf("status %+v", s)
	}
	pod.Spec.HostNetwork = true
	if s := (report{pod: pod, runtime: runtime, probes: allWell, hostIPs: node}).status(); s.PodIP != "172.30.0.11" || s.PodIPs[1].IP != "fd00::11" {
		t.Errorf("of a hostNetwork pod: %+v", s)
	}
}

func TestAPodThatEndedKeepsItsPhaseAndAddress(t *testing.T) {
	pod := specified("a", v1.RestartPolicyNever)
	old := v1.PodStatus{Phase: v1.PodSucceeded, PodIPs: []v1.PodIP{{IP: "10.0.0.9"}}}
	s := report{pod: pod, old: old, runtime: observed(pod, "none"), probes: allWell, stopped: true}.status()
	if s.Phase != v1.PodSucceeded || s.PodIP != "10.0.0.9" {
		t.Errorf("phase %s, address %s", s.Phase, s.PodIP)
	}
}

func TestAContainerThatVanishedHasEndedAndCountsAsARestart(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	old := v1.PodStatus{Phase: v1.PodRunning, ContainerStatuses: []v1.ContainerStatus{{Name: "a", RestartCount: 2, State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}}}
	s := report{pod: pod, old: old, runtime: observed(pod, "none"), probes: allWell}.status()
	a := s.ContainerStatuses[0]
	if s.Phase != v1.PodRunning || a.RestartCount != 3 || a.LastTerminationState.Terminated == nil || a.LastTerminationState.Terminated.ExitCode != 137 {
		t.Errorf("phase %s, status %+v", s.Phase, a)
	}
}

func TestTheInstanceBeforeIsTheLastState(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	a := report{pod: pod, runtime: observed(pod, "a:running a:exit7"), probes: allWell}.status().ContainerStatuses[0]
	if a.State.Running == nil || a.LastTerminationState.Terminated == nil || a.LastTerminationState.Terminated.ExitCode != 7 {
		t.Errorf("status %+v", a)
	}
}
