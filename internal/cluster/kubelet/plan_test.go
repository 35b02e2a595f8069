//go:build linux

package kubelet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"

	"minato/internal/cluster/kubelet/probe"
)

// specified is a pod of "init side* | main other debug+": init containers before the bar, sidecars with a star, ephemeral
// containers with a plus.
func specified(containers string, policy v1.RestartPolicy) *v1.Pod {
	always := v1.ContainerRestartPolicyAlways
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}, Spec: v1.PodSpec{RestartPolicy: policy}}
	inits, regular, bar := strings.Cut(containers, "|")
	if !bar {
		inits, regular = "", containers
	}
	for _, name := range strings.Fields(inits) {
		c := v1.Container{Name: strings.TrimSuffix(name, "*"), Image: "image"}
		if strings.HasSuffix(name, "*") {
			c.RestartPolicy = &always
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	for _, name := range strings.Fields(regular) {
		if debug, ok := strings.CutSuffix(name, "+"); ok {
			e := v1.EphemeralContainer{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: debug, Image: "image"}}
			pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, e)
			continue
		}
		pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: name, Image: "image"})
	}
	return pod
}

// observed is what the runtime has: "none", or a sandbox with "main:running side:exit0 main:exit1", the newest
// first. "down" is a sandbox that has ended.
func observed(pod *v1.Pod, state string) *kubecontainer.PodStatus {
	status := &kubecontainer.PodStatus{ID: pod.UID, Name: pod.Name, Namespace: pod.Namespace}
	if state == "none" {
		return status
	}
	sandbox := &cri.PodSandboxStatus{
		Id: "sandbox", Metadata: &cri.PodSandboxMetadata{Attempt: 2}, Network: &cri.PodSandboxNetworkStatus{Ip: "10.0.0.1"},
		Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{}}},
	}
	for _, word := range strings.Fields(state) {
		if word == "down" {
			sandbox.State = cri.PodSandboxState_SANDBOX_NOTREADY
			continue
		}
		name, what, _ := strings.Cut(word, ":")
		s := &kubecontainer.Status{ID: kubecontainer.ContainerID{Type: runtimeName, ID: name}, Name: name, FinishedAt: time.Now()}
		spec := kubecontainer.GetContainerSpec(pod, name)
		s.Hash = kubecontainer.HashContainer(spec)
		switch what {
		case "running":
			s.State = kubecontainer.ContainerStateRunning
		case "changed":
			s.State, s.Hash = kubecontainer.ContainerStateRunning, 1
		case "created":
			s.State = kubecontainer.ContainerStateCreated
		case "unknown":
			s.State = kubecontainer.ContainerStateUnknown
		default:
			s.State = kubecontainer.ContainerStateExited
			if _, err := fmt.Sscanf(what, "exit%d", &s.ExitCode); err != nil {
				panic("no state " + what)
			}
		}
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	status.SandboxStatuses = []*cri.PodSandboxStatus{sandbox}
	if sandbox.State == cri.PodSandboxState_SANDBOX_READY {
		status.ActiveContainerStatuses = status.ContainerStatuses
	}
	return status
}

func (a actions) String() string {
	var words []string
	if a.killPod {
		words = append(words, "kill-pod")
	}
	if a.createSandbox {
		words = append(words, fmt.Sprintf("sandbox#%d", a.attempt))
	}
	for _, k := range a.kill {
		words = append(words, "kill:"+k.container.Name)
	}
	for _, s := range a.start {
		words = append(words, "start:"+s.container.Name)
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	const always, onFailure, never = v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever
	for name, c := range map[string]struct {
		containers string
		policy     v1.RestartPolicy
		observed   string
		probes     string // containers that are not as without probes: "main:dead side:starting"
		want       string
	}{
		"a new pod":                                         {"a b", always, "none", "", "kill-pod sandbox#0 start:a start:b"},
		"a new pod with init containers":                    {"i j | a", always, "none", "", "kill-pod sandbox#0 start:i"},
		"all runs":                                          {"a b", always, "a:running b:running", "", ""},
		"one is missing":                                    {"a b", always, "a:running", "", "start:b"},
		"one failed":                                        {"a b", always, "a:running b:exit1", "", "start:b"},
		"one ended well and is restarted":                   {"a b", always, "a:running b:exit0", "", "start:b"},
		"one ended well and is not restarted":               {"a b", onFailure, "a:running b:exit0", "", ""},
		"one failed and is restarted":                       {"a b", onFailure, "a:running b:exit1", "", "start:b"},
		"one failed and is not":                             {"a b", never, "a:running b:exit1", "", ""},
		"all ended well":                                    {"a b", onFailure, "a:exit0 b:exit0", "", "kill-pod"},
		"all ended":                                         {"a b", never, "a:exit0 b:exit1", "", "kill-pod"},
		"only the newest instance counts":                   {"a", onFailure, "a:exit0 a:exit1", "", "kill-pod"},
		"made and never started":                            {"a", always, "a:created", "", "start:a"},
		"in an unknown state":                               {"a", always, "a:unknown", "", "kill:a start:a"},
		"the image was changed":                             {"a b", never, "a:changed b:running", "", "kill:a start:a"},
		"liveness failed":                                   {"a b", always, "a:running b:running", "a:dead", "kill:a start:a"},
		"liveness failed, never restarted":                  {"a b", never, "a:running b:running", "a:dead", "kill:a"},
		"startup failed":                                    {"a", onFailure, "a:running", "a:unstarted", "kill:a start:a"},
		"the sandbox ended":                                 {"a", always, "down a:exit137", "", "kill-pod sandbox#3 start:a"},
		"the sandbox ended with init containers":            {"i | a", always, "down a:exit137 i:exit0", "", "kill-pod sandbox#3 start:i"},
		"the sandbox ended, never restarted":                {"a", never, "down a:exit137", "", "kill-pod"},
		"the sandbox ended before any container":            {"a", never, "down", "", "kill-pod sandbox#3 start:a"},
		"the sandbox ended, one was done":                   {"a b", onFailure, "down a:exit0 b:exit1", "", "kill-pod sandbox#3 start:b"},
		"the sandbox ended, all were done":                  {"a", onFailure, "down a:exit0", "", "kill-pod"},
		"the first init container is to start":              {"i j | a", always, "", "", "start:i"},
		"an init container runs":                            {"i j | a", always, "i:running", "", ""},
		"an init container is done":                         {"i j | a", always, "i:exit0", "", "start:j"},
		"all init containers are done":                      {"i j | a b", always, "j:exit0 i:exit0", "", "start:a start:b"},
		"an earlier init container is forgotten":            {"i j | a", always, "j:exit0", "", "start:a"},
		"an init container failed":                          {"i j | a", onFailure, "i:exit1", "", "start:i"},
		"an init container failed for good":                 {"i j | a", never, "i:exit1", "", "kill-pod"},
		"init containers do not run again":                  {"i | a", always, "a:exit1 i:exit0", "", "start:a"},
		"init containers are forgotten after they are done": {"i | a", always, "a:running", "", ""},
		"a sidecar has not started":                         {"s* | a", always, "s:running", "s:starting", ""},
		"a sidecar has started":                             {"s* | a", always, "s:running", "", "start:a"},
		"a sidecar has started, and another init follows":   {"s* i | a", always, "s:running", "", "start:i"},
		"a sidecar ended before initialization":             {"s* i | a", always, "s:exit0", "", "start:s"},
		"a sidecar ended while the pod runs":                {"s* | a", always, "a:running s:exit1", "", "start:s"},
		"a sidecar ended while the pod runs, never":         {"s* | a", never, "a:running s:exit0", "", "start:s"},
		"a sidecar failed its liveness in initialization":   {"s* | a", always, "s:running", "s:dead", "kill:s start:s start:a"},
		"a sidecar was changed before it started":           {"s* | a", always, "s:changed", "s:starting", ""},
		"an init container is in an unknown state":          {"i | a", always, "i:unknown", "", "kill:i start:i"},
		"an init container is in an unknown state, never":   {"i | a", never, "i:unknown", "", "kill-pod"},
		"a sidecar is in an unknown state, never":           {"s* | a", never, "s:unknown", "", "kill:s start:s"},
		"a sidecar failed its liveness":                     {"s* | a", never, "a:running s:running", "s:dead", "kill:s start:s"},
		"an ephemeral container is started":                 {"a d+", always, "a:running", "", "start:d"},
		"an ephemeral container waits for nobody":           {"i | a d+", always, "i:running", "", "start:d"},
		"an ephemeral container runs once":                  {"a d+ e+", always, "a:running d:exit1 e:exit0", "", ""},
		"an ephemeral container does not keep a pod alive":  {"a d+", never, "a:exit0", "", "kill-pod"},
		"a sidecar does not keep a pod alive":               {"s* | a", never, "a:exit0 s:running", "", "kill-pod"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := specified(c.containers, c.policy)
			states := func(id string) (probe.State, bool) {
				switch {
				case slices.Contains(strings.Fields(c.probes), id+":dead"):
					return probe.State{Started: true, Failed: "Liveness"}, true
				case slices.Contains(strings.Fields(c.probes), id+":unstarted"):
					return probe.State{Failed: "Startup"}, true
				case slices.Contains(strings.Fields(c.probes), id+":starting"):
					return probe.State{Alive: true}, true
				}
				return probe.State{Started: true, Ready: true, Alive: true}, true
			}
			if got := plan(pod, observed(pod, c.observed), states).String(); got != c.want {
				t.Errorf("plan %q, want %q", got, c.want)
			}
		})
	}
}

func TestPlanSaysWhyItKills(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	dead := func(string) (probe.State, bool) { return probe.State{Failed: "Liveness"}, true }
	a := plan(pod, observed(pod, "a:running"), dead)
	if want := "Container a failed liveness probe, will be restarted"; a.kill[0].message != want || a.kill[0].reason != killedByLiveness {
		t.Errorf("kill %+v, want %q", a.kill[0], want)
	}
}

func TestPhase(t *testing.T) {
	const always, onFailure, never = v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever
	for name, c := range map[string]struct {
		containers string
		policy     v1.RestartPolicy
		observed   string
		stopped    bool
		want       v1.PodPhase
	}{
		"nothing yet":                       {"a b", always, "none", false, v1.PodPending},
		"one of two runs":                   {"a b", always, "a:running", false, v1.PodPending},
		"both run":                          {"a b", always, "a:running b:running", false, v1.PodRunning},
		"one runs and one ended":            {"a b", never, "a:running b:exit1", false, v1.PodRunning},
		"between restarts":                  {"a", always, "a:exit1", false, v1.PodRunning},
		"between restarts on failure":       {"a", onFailure, "a:exit1", false, v1.PodRunning},
		"ended well":                        {"a b", never, "a:exit0 b:exit0", false, v1.PodSucceeded},
		"ended well, restarted on failure":  {"a", onFailure, "a:exit0", false, v1.PodSucceeded},
		"one failed":                        {"a b", never, "a:exit0 b:exit1", false, v1.PodFailed},
		"in init":                           {"i | a", always, "i:running", false, v1.PodPending},
		"init failed, again":                {"i | a", always, "i:exit1", false, v1.PodPending},
		"init failed for good":              {"i | a", never, "i:exit1", false, v1.PodFailed},
		"a sidecar alone":                   {"s* | a", always, "s:running", false, v1.PodPending},
		"a sidecar after the end":           {"s* | a", never, "a:exit0 s:running", false, v1.PodRunning},
		"all after the end":                 {"s* | a", never, "a:exit0 s:exit143", false, v1.PodSucceeded},
		"deleted, ended well":               {"a", always, "a:exit0", true, v1.PodSucceeded},
		"deleted, killed":                   {"a", always, "a:exit137", true, v1.PodFailed},
		"deleted before anything was there": {"a", always, "none", true, v1.PodFailed},
	} {
		t.Run(name, func(t *testing.T) {
			pod := specified(c.containers, c.policy)
			r := report{pod: pod, runtime: observed(pod, c.observed), stopped: c.stopped, probes: allWell}
			if got := r.status().Phase; got != c.want {
				t.Errorf("phase %s, want %s", got, c.want)
			}
		})
	}
}

func allWell(string) (probe.State, bool) {
	return probe.State{Started: true, Ready: true, Alive: true}, true
}
