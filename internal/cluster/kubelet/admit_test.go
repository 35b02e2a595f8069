//go:build linux

package kubelet

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestANodeRejectsWhatItCannotRunWithKubernetesReasons(t *testing.T) {
	yes := true
	strict := v1.SupplementalGroupsPolicyStrict
	ask := func(name v1.ResourceName, quantity string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Requests = v1.ResourceList{name: resource.MustParse(quantity)}
		}
	}
	set := func(name string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: name, Value: "1"}}}
		}
	}
	for name, c := range map[string]struct {
		change          func(*v1.Pod)
		reason, message string
	}{
		"more CPU than the node has":    {ask("cpu", "9"), "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 8000"},
		"more memory than the node has": {ask("memory", "9Gi"), "OutOfmemory", "Pod was rejected: Node didn't have enough resource: memory"},
		"huge pages":                    {ask("hugepages-2Mi", "2Mi"), "OutOfhugepages-2Mi", "Pod was rejected: Node didn't have enough resource: hugepages-2Mi"},
		"another node's label":          {func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }, "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed"},
		"an unsafe sysctl":              {set("kernel.msgmax"), "SysctlForbidden", `Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"a sysctl of the node's": {func(p *v1.Pod) {
			set("net.ipv4.tcp_syncookies")(p)
			p.Spec.HostNetwork = true
		}, "SysctlForbidden", `Pod was rejected: forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled`},
		"Windows":                    {func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} }, "PodOSNotSupported", "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS"},
		"strict supplemental groups": {func(p *v1.Pod) { p.Spec.SecurityContext = &v1.PodSecurityContext{SupplementalGroupsPolicy: &strict} }, "SupplementalGroupsPolicyNotSupported", "Pod was rejected: SupplementalGroupsPolicy=Strict is not supported in this node"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := simple(v1.RestartPolicyAlways)
				pod.Spec.EnableServiceLinks = &yes
				c.change(pod)
				b := newBench(t, pod, 1)
				b.start()
				defer b.stop()
				b.within(time.Second, "failed", func() bool { return b.pod().Status.Phase == v1.PodFailed })
				if s := b.pod().Status; s.Reason != c.reason || !strings.HasPrefix(s.Message, c.message) {
					t.Errorf("status %+v", s)
				}
				if b.events.count(c.reason+": "+strings.TrimPrefix(c.message, "Pod was rejected: ")) != 1 {
					t.Errorf("events %q", b.events.texts)
				}
				b.sync()
				time.Sleep(time.Second)
				if n := b.runtime.Calls("RunPodSandbox"); n != 0 {
					t.Errorf("%d sandboxes were made", n)
				}
				b.delete(30)
				b.within(time.Second, "gone", b.gone)
			})
		})
	}
}

func TestASafeSysctlReachesTheSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}}
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		b.within(time.Second, "running", b.running)
		if _, sandbox := b.runtime.Container("a"); sandbox.Linux.Sysctls["net.ipv4.ip_unprivileged_port_start"] != "0" {
			t.Errorf("sysctls %v", sandbox.Linux.Sysctls)
		}
	})
}

func TestAPodThatRanBeforeIsNotJudgedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		b := newBench(t, pod, 1)
		b.start()
		b.within(time.Second, "running", b.running)
		b.stop()
		ran := b.pod()
		ran.Spec.NodeSelector = map[string]string{"label": "that the node has lost"}
		second := newBench(t, ran, 1)
		second.runtime = b.runtime
		second.k.cfg.Runtime = b.runtime
		second.start()
		defer second.stop()
		time.Sleep(5 * time.Second)
		if s := second.pod().Status; s.Phase != v1.PodRunning {
			t.Errorf("status %+v", s)
		}
	})
}

func TestADeletedPodHoldsNothingThatItsSuccessorNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, simple(v1.RestartPolicyAlways), 1)
		b.start()
		defer b.stop()
		b.within(time.Second, "running", b.running)
		if n := len(b.k.podsWithShare()); n != 1 {
			t.Errorf("%d pods hold a share, want 1", n)
		}
		b.runtime.Stops = time.Minute // it is still there when the API has forgotten it
		b.k.gone(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}})
		if n := len(b.k.podsWithShare()); n != 0 {
			t.Errorf("%d pods hold a share", n)
		}
	})
}

func TestAHostPortIsGivenOnce(t *testing.T) {
	port := func(name string) *v1.Pod {
		pod := specified("a", v1.RestartPolicyAlways)
		pod.Name = name
		pod.Spec.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: v1.ProtocolTCP}}
		return pod
	}
	a, err := newAdmission(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	node := roomyNode()
	got := a.judge(port("second"), []*v1.Pod{port("first")}, func(context.Context, bool) (*v1.Node, error) { return node, nil })
	if got.Admit || got.Reason != "NodePorts" {
		t.Errorf("got %+v", got)
	}
}
