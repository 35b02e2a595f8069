//go:build linux

package kubelet_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"minato/internal/netns"
)

func TestAPodRunsAndSaysSo(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	start := time.Now()
	w.create(pod("web", "echo hello ; sleep"))
	p := w.until("web", "running and ready", func(p *v1.Pod) bool { return running(p) && ready(p) })
	t.Logf("running after %v", time.Since(start))
	s := p.Status
	if s.PodIP == "" || s.PodIP != s.PodIPs[0].IP || s.HostIP != "127.0.0.1" || s.QOSClass != v1.PodQOSBestEffort || s.StartTime == nil || s.ObservedGeneration != 1 {
		t.Errorf("status %+v", s)
	}
	for _, kind := range []v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled} {
		if condition(p, kind) != v1.ConditionTrue {
			t.Errorf("condition %s is %s", kind, condition(p, kind))
		}
	}
	c := s.ContainerStatuses[0]
	if c.Name != "main" || !c.Ready || c.Started == nil || !*c.Started || c.State.Running == nil || !strings.HasPrefix(c.ContainerID, "containerd://") || c.Image != podImage {
		t.Errorf("container status %+v", c)
	}
	for _, text := range []string{"Pulled: Successfully pulled image", "Created: Container created", "Started: Container started"} {
		w.untilEvent("web", text)
	}
	if log := w.untilLogged("web", "main", "hello"); log != "hello\n" {
		t.Errorf("log %q", log)
	}
	start = time.Now()
	w.create(pod("again", "sleep"))
	w.until("again", "running", running)
	t.Logf("with its image present: running after %v", time.Since(start))
}

func TestAContainerSeesItsEnvironmentFilesAndNames(t *testing.T) {
	service := func(ns, name, ip string) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}}}}
	}
	w := newWorld(t, netns.NS{},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "settings"}, Data: map[string]string{"color": "blue"}},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "key"}, Data: map[string][]byte{"word": []byte("open")}},
		service("default", "kubernetes", "10.96.0.1"), service(namespace, "my-db", "10.96.0.7"), service("other", "unseen", "10.96.0.8"))
	w.start()
	mode := int32(0o400)
	w.create(pod("full", "env ; cat /etc/resolv.conf /etc/hosts /config/color /secret/word /labels/all /var/run/secrets/kubernetes.io/serviceaccount/token ; write /scratch/a b ; write /scratch/sub-d/x y ; write /sub/z 1 ; cat /scratch/sub-d/z ; hostname ; ids ; echo end ; sleep", func(p *v1.Pod) {
		user := int64(1234)
		p.Labels = map[string]string{"app": "full"}
		p.Spec.Hostname, p.Spec.Subdomain = "h", "sub"
		p.Spec.HostAliases = []v1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"alias"}}}
		p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &user, FSGroup: &user}
		p.Spec.InitContainers = []v1.Container{container("prepare", "write /scratch/a from-init")}
		p.Spec.InitContainers[0].VolumeMounts = append(p.Spec.InitContainers[0].VolumeMounts, v1.VolumeMount{Name: "sub", MountPath: "/scratch"})
		c := &p.Spec.Containers[0]
		c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi"), v1.ResourceCPU: resource.MustParse("500m")}
		c.Env = []v1.EnvVar{
			{Name: "IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "status.podIP"}}},
			{Name: "COLOR", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
			{Name: "LIMIT", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory"}}},
			{Name: "DB", Value: "$(MY_DB_SERVICE_HOST):$(COLOR)"},
		}
		c.EnvFrom = []v1.EnvFromSource{{Prefix: "S_", SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "key"}}}}
		p.Spec.Volumes = append(p.Spec.Volumes,
			v1.Volume{Name: "config", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode}}},
			v1.Volume{Name: "secret", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "key", DefaultMode: &mode}}},
			v1.Volume{Name: "labels", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{DefaultMode: &mode, Items: []v1.DownwardAPIVolumeFile{{Path: "all", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels"}}}}}},
			v1.Volume{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
			v1.Volume{Name: "sub", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
		c.VolumeMounts = append(c.VolumeMounts,
			v1.VolumeMount{Name: "config", MountPath: "/config"}, v1.VolumeMount{Name: "secret", MountPath: "/secret"}, v1.VolumeMount{Name: "labels", MountPath: "/labels"},
			v1.VolumeMount{Name: "scratch", MountPath: "/scratch"},
			v1.VolumeMount{Name: "sub", MountPath: "/scratch/sub-d", SubPath: "deep/er"}, v1.VolumeMount{Name: "sub", MountPath: "/sub", SubPath: "deep/er"})
	}))
	log := w.untilLogged("full", "main", "end")
	p := w.get("full")
	for _, want := range []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1\n", "MY_DB_PORT_80_TCP=tcp://10.96.0.7:80\n", "DB=10.96.0.7:blue\n", "S_word=open\n", "LIMIT=67108864\n",
		"IP=" + p.Status.PodIP + "\n", "COLOR=blue\n",
		"search default.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.96.0.10\noptions ndots:5\n",
		"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n", p.Status.PodIP + "\th.sub.default.svc.cluster.local\th\n", "192.0.2.1\talias\n",
		"blueopenapp=\"full\"a-token1h\n1234 1234\nend\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the container does not see %q", want)
		}
	}
	if strings.Contains(log, "UNSEEN") {
		t.Error("the container sees a Service of another namespace")
	}
	if t.Failed() {
		t.Log(log)
	}
}

func TestInitContainersRunOneAfterTheOtherAndSidecarsRunOn(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	always := v1.ContainerRestartPolicyAlways
	gate := newGate(t)
	w.create(pod("init", "exists /shared/two ; echo main ; await /gate/open", func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.InitContainers = []v1.Container{container("one", "write /shared/one 1"), container("side", "write /shared/side 1 ; sleep"), container("two", "exists /shared/one ; exists /shared/side ; write /shared/two 2")}
		p.Spec.InitContainers[1].RestartPolicy = &always
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "shared", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
		for _, c := range []*v1.Container{&p.Spec.InitContainers[0], &p.Spec.InitContainers[1], &p.Spec.InitContainers[2], &p.Spec.Containers[0]} {
			c.VolumeMounts = append(c.VolumeMounts, v1.VolumeMount{Name: "shared", MountPath: "/shared"})
		}
		gate.mount(p)
	}))
	w.until("init", "running with its sidecar", func(p *v1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil && p.Status.InitContainerStatuses[1].State.Running != nil
	})
	gate.open()
	p := w.until("init", "succeeded", func(p *v1.Pod) bool {
		return p.Status.Phase == v1.PodSucceeded && p.Status.InitContainerStatuses[1].State.Terminated != nil
	})
	for i, want := range []string{"one", "side", "two"} {
		s := p.Status.InitContainerStatuses[i]
		if s.Name != want || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
			t.Errorf("init container %d is %+v, want %s ended well", i, s, want)
		}
	}
}

func TestAContainerThatFailsIsRestartedAndThenBacksOff(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("crash", "write /dev/termination-log why ; exit 3"))
	p := w.until("crash", "in back-off", func(p *v1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	s := p.Status.ContainerStatuses[0]
	last := s.LastTerminationState.Terminated
	if p.Status.Phase != v1.PodRunning || s.RestartCount != 1 || last == nil || last.ExitCode != 3 || last.Message != "why" || last.Reason != "Error" || ready(p) {
		t.Errorf("phase %s, status %+v", p.Status.Phase, s)
	}
	if want := "back-off 10s restarting failed container=main pod=crash_default(uid-crash)"; s.State.Waiting.Message != want {
		t.Errorf("message %q, want %q", s.State.Waiting.Message, want)
	}
	w.untilEvent("crash", "BackOff: Back-off restarting failed container main in pod crash_default(uid-crash)")
	if _, code := w.call("/containerLogs/default/crash/main?previous=true"); code != http.StatusOK {
		t.Errorf("previous log: %d", code)
	}
}

func TestAPodThatIsNotRestartedEndsInItsPhase(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	never := func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever }
	w.create(pod("well", "echo done", never))
	w.create(pod("badly", "complain oh ; exit 1", never, func(p *v1.Pod) {
		p.Spec.Containers[0].TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
	}))
	p := w.until("well", "succeeded", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
	if c := p.Status.ContainerStatuses[0]; c.State.Terminated == nil || c.State.Terminated.Reason != "Completed" || ready(p) {
		t.Errorf("status %+v", c)
	}
	p = w.until("badly", "failed", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed })
	if c := p.Status.ContainerStatuses[0]; c.State.Terminated == nil || c.State.Terminated.ExitCode != 1 || c.State.Terminated.Message != "oh\n" && c.State.Terminated.Message != "oh" {
		t.Errorf("status %+v", c.State.Terminated)
	}
	if log := w.untilLogged("well", "main", "done"); log != "done\n" {
		t.Errorf("log of the ended pod %q", log)
	}
}

func TestAnUnknownImageIsErrImagePullAndThenBackOff(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("nowhere", "sleep", func(p *v1.Pod) { p.Spec.Containers[0].Image = "nosuch:1" }))
	waits := func(reason string) func(*v1.Pod) bool {
		return func(p *v1.Pod) bool {
			return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
		}
	}
	w.until("nowhere", "ErrImagePull", waits("ErrImagePull"))
	p := w.until("nowhere", "ImagePullBackOff", waits("ImagePullBackOff"))
	if p.Status.Phase != v1.PodPending || p.Status.PodIP == "" {
		t.Errorf("status %+v", p.Status)
	}
	for _, text := range []string{`Pulling: Pulling image "nosuch:1"`, `Failed: Failed to pull image "nosuch:1": `, "Failed: Error: ErrImagePull", `BackOff: Back-off pulling image "nosuch:1"`, "Failed: Error: ImagePullBackOff"} {
		w.untilEvent("nowhere", text)
	}
	if body, code := w.call("/containerLogs/default/nowhere/main"); code != http.StatusBadRequest || !strings.Contains(body, "trying and failing to pull image") {
		t.Errorf("log: %d %s", code, body)
	}
	w.delete("nowhere", 30)
	w.untilGone("nowhere")
}

func TestAlwaysPullingWorksWithoutUplink(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("always", "sleep", func(p *v1.Pod) { p.Spec.Containers[0].ImagePullPolicy = v1.PullAlways }))
	w.until("always", "running", running)
	w.untilEvent("always", `Pulled: Successfully pulled image "test.local/pod:1" in `)
}

func TestReadinessFollowsItsProbeAndAFailedLivenessRestarts(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("probed", "write /tmp/alive 1 ; serve 8080 /tmp/ready ; sleep", func(p *v1.Pod) {
		c := &p.Spec.Containers[0]
		c.ReadinessProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1}
		alive := v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"/pod", "exists", "/tmp/alive"}}}
		c.StartupProbe = &v1.Probe{ProbeHandler: alive, PeriodSeconds: 1, TimeoutSeconds: 30, SuccessThreshold: 1, FailureThreshold: 60} // the file may take a while
		c.LivenessProbe = &v1.Probe{ProbeHandler: alive, PeriodSeconds: 1, TimeoutSeconds: 30, SuccessThreshold: 1, FailureThreshold: 1}
	}))
	w.until("probed", "running and not ready", func(p *v1.Pod) bool { return running(p) && !ready(p) })
	w.untilEvent("probed", "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503")
	w.exec("probed", "/pod", "write", "/tmp/ready", "1")
	w.until("probed", "ready", ready)
	w.exec("probed", "/pod", "write", "/tmp/alive2", "1")
	w.remove("probed", "/tmp/alive")
	w.until("probed", "restarted", func(p *v1.Pod) bool {
		c := p.Status.ContainerStatuses[0]
		return c.RestartCount == 1 && c.State.Running != nil && c.LastTerminationState.Terminated != nil && !ready(p)
	})
	w.untilEvent("probed", "Killing: Container main failed liveness probe, will be restarted")
}

func TestADeletedPodEndsGracefullyAndLeavesNothing(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("leaving", "sleep", func(p *v1.Pod) {
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"/pod", "wait", "700ms"}}}}
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "mem", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}})
	}))
	w.until("leaving", "ready", ready)
	start := time.Now()
	w.delete("leaving", 30)
	time.Sleep(300 * time.Millisecond) // within the hook
	if p := w.get("leaving"); !ready(p) || !running(p) {
		t.Errorf("in its preStop hook the pod is %+v", p.Status)
	}
	w.untilGone("leaving")
	if took := time.Since(start); took < 700*time.Millisecond || took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	w.untilEvent("leaving", "Killing: Stopping container main")
	w.stop() // after what is under way
	w.leftovers()
}

func TestAStubbornContainerIsKilledAfterItsGraceAndAShorterGraceCounts(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	w.create(pod("stubborn", "stubborn"))
	w.untilLogged("stubborn", "main", "ignoring")
	w.until("stubborn", "ready", ready)
	w.delete("stubborn", 600)
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	w.delete("stubborn", 1)
	w.untilGone("stubborn")
	if took := time.Since(start); took < time.Second || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestARestartedKubeletAdoptsItsPods(t *testing.T) {
	w := newWorld(t, netns.NS{})
	w.start()
	probe := func(p *v1.Pod) {
		p.Spec.Containers[0].ReadinessProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}
	}
	w.create(pod("kept", "serve 8080 ; sleep", probe))
	w.create(pod("removed", "sleep"))
	before := w.until("kept", "ready", ready)
	w.until("removed", "ready", ready)
	w.stop()
	if err := w.client.CoreV1().Pods(namespace).Delete(t.Context(), "removed", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.start()
	deadline := time.Now().Add(soon)
	folder := filepath.Join(w.config.StateDir, "pods", "uid-removed")
	for exists(folder) || w.sandboxes() != 1 {
		if time.Now().After(deadline) {
			t.Fatal("something of the pod that the API has no longer is left")
		}
		if !ready(w.get("kept")) {
			t.Fatal("the adopted pod became unready")
		}
		time.Sleep(5 * time.Millisecond)
	}
	after := w.get("kept")
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("container was %+v, is %+v", a, b)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestAHostNetworkPodOfAVirtualNodeIsInTheNodesNamespace(t *testing.T) {
	ns := virtualNode(t)
	w := newWorld(t, ns)
	w.config.Addresses = w.config.Addresses[:1]
	w.start()
	w.create(pod("host", "addresses ; hostname ; sleep", func(p *v1.Pod) { p.Spec.HostNetwork = true }))
	p := w.until("host", "ready", ready)
	if p.Status.PodIP != "127.0.0.1" {
		t.Errorf("address %s", p.Status.PodIP)
	}
	var log string
	if err := ns.Do(func() error { log = w.logFile("host"); return nil }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "198.51.100.1/32") || !strings.Contains(log, nodeName) {
		t.Errorf("the pod sees %q", log)
	}
	w.delete("host", 1)
	w.untilGone("host")
	if !loopbackIsUp(t, ns) {
		t.Error("the node's lo is down")
	}
}
