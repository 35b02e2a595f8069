//go:build linux

package walkthrough

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minato/test/world"
)

// What pods ask for, and what their containers have got of it, by testdata/pod-spec.yaml.
func TestPodsGetWhatTheyAskFor(t *testing.T) {
	manifest, err := filepath.Abs("testdata/pod-spec.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := world.Start(t, world.Config{Images: []string{"nginx", "busybox", "thr3a/debugger"}})
	writeSeccompProfile(t, w)
	w.Kubectl(t, "apply", "-f", manifest)
	p := spec{w}
	for _, name := range []string{"confined", "free", "carrier"} {
		w.Kubectl(t, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=50s")
	}
	t.Run("IdentityAndNames", p.identity)
	t.Run("Environment", p.environment)
	t.Run("VolumesModesAndGroups", p.volumes)
	t.Run("CgroupsByRequestsAndLimits", p.cgroups)
	t.Run("StatusTellsOfAllThat", p.status)
	t.Run("AConfigMapChangesInPlace", p.change)
	t.Run("PrivilegedWithTheHostsProcesses", p.free)
	t.Run("APortOfTheNode", p.hostPort)
	t.Run("AContainerThatTakesTooMuchMemory", p.hungry)
	t.Run("APodThatFillsTheDisk", p.full)
	t.Run("WhatCannotBeIsSaid", p.refused)
	t.Run("ASeccompProfileOfTheMachine", p.seccomp)
	t.Run("AVariableFromAFile", p.file)
	t.Run("FilesAreCopiedInAndOut", p.copy)
	t.Run("BothProtocolsOfStreams", p.streams)
	t.Run("AnEphemeralContainerLooksIn", p.debug)
}

type spec struct{ w *world.World }

// in runs a line of shell in a pod.
func (p spec) in(t *testing.T, pod, line string) string {
	t.Helper()
	return p.w.Kubectl(t, "exec", pod, "--", "sh", "-c", line)
}

func (p spec) get(t *testing.T, pod, path string) string {
	t.Helper()
	return p.w.Kubectl(t, "get", "pod", pod, "-o", "jsonpath="+path)
}

func (p spec) identity(t *testing.T) {
	wantText(t, p.in(t, "confined", "id; hostname"), "uid=1000 gid=1000 groups=1000,2000,3000\n", "web.sub.default.svc.cluster.local\n")
	wantText(t, p.in(t, "confined", "cat /proc/self/status"), "CapBnd:\t0000000000000400\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n")
	wantText(t, p.in(t, "confined", "touch /x 2>&1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "Read-only file system", "\n0\n")
	wantText(t, p.in(t, "confined", "cat /etc/hosts /etc/resolv.conf"),
		"\tweb.sub.default.svc.cluster.local\tweb\n", "192.0.2.9\tfar\taway\n",
		"search default.svc.cluster.local svc.cluster.local cluster.local example.org\n", "nameserver "+world.Default().DNS+"\n", "options ndots:2\n")
}

func (p spec) environment(t *testing.T) {
	wantText(t, p.in(t, "confined", "env"), "P_color=blue\n", "CPU=500\n", "MEMORY=32\n", "ACCOUNT=default\n", "NOTE=hello\n", "APP=confined\n",
		"NODE="+p.get(t, "confined", "{.spec.nodeName}")+"\n", "HOST_IP="+p.get(t, "confined", "{.status.hostIP}")+"\n", "KUBERNETES_SERVICE_HOST="+world.Default().API+"\n")
}

func (p spec) volumes(t *testing.T) {
	wantText(t, p.in(t, "confined", "touch /sub/file && stat -c '%n %a %u %g' /scratch /scratch/confined /scratch/confined/file"),
		"/scratch 2777 0 2000\n", "/scratch/confined 2777 0 2000\n", "/scratch/confined/file 644 1000 2000\n")
	wantText(t, p.in(t, "confined", "cd /all && stat -L -c '%n %a %g' deep/color word labels token; cat deep/color word labels cpu"),
		"deep/color 444 2000\n", "word 440 2000\n", "token 640 2000\n", "blueopenapp=\"confined\"500")
	wantText(t, p.in(t, "confined", "df -k --output=size /memory; head -c 2m /dev/zero > /memory/file; echo $?"), "1024\n", "1\n")
	wantText(t, p.in(t, "confined", "cut -d. -f2 < /all/token | base64 -d 2>/dev/null; true"), `"aud":["somebody"]`)
}

// cgroups reads as the container does: its own limits, and its pod's above.
func (p spec) cgroups(t *testing.T) {
	uid := p.get(t, "confined", "{.metadata.uid}")
	for what, files := range map[string]map[string]string{
		"memory": {"memory/%s/memory.limit_in_bytes": "67108864", "%s/memory.max": "67108864"},
		"weight": {"cpu/%s/cpu.shares": "102", "%s/cpu.weight": "4"},
		"quota":  {"cpu/%s/cpu.cfs_quota_us": "50000", "%s/cpu.max": "50000 100000"},
	} {
		found := 0
		for file, want := range files {
			pod := filepath.Join("/sys/fs/cgroup", fmt.Sprintf(file, "minato-"+p.w.Name+"/pod"+uid))
			containers, err := filepath.Glob(filepath.Join(filepath.Dir(pod), "*", filepath.Base(pod)))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range append(containers, pod) {
				if got, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(got)) == want {
					found++
				}
			}
		}
		if found != 2 {
			t.Errorf("%s: %d cgroups have it, want the pod and its container", what, found)
		}
	}
}

func (p spec) status(t *testing.T) {
	got := p.get(t, "confined", "{.status.qosClass} {.status.hostIPs[0].ip} {.status.containerStatuses[0].resources.limits.memory} "+
		"{.status.containerStatuses[0].allocatedResources.cpu} {.status.observedGeneration}")
	if want := "Burstable " + p.get(t, "confined", "{.status.hostIP}") + " 64Mi 100m 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func (p spec) change(t *testing.T) {
	p.w.Kubectl(t, "patch", "configmap", "settings", "-p", `{"data":{"color":"red"}}`)
	world.Eventually(t, netTime, func() error {
		if got := p.in(t, "confined", "cat /all/deep/color"); got != "red" {
			return fmt.Errorf("the file says %q", got)
		}
		return nil
	})
	wantText(t, p.in(t, "confined", "echo $P_color"), "blue\n")
}

func (p spec) free(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	status := p.in(t, "free", "cat /proc/self/status /host; ls -d /proc/"+fmt.Sprint(os.Getpid()))
	wantText(t, status, "Seccomp:\t0\n", "/proc/"+fmt.Sprint(os.Getpid())+"\n")
	if strings.Contains(status, "CapEff:\t00000000a80425fb") || !strings.Contains(status, host) && host != "" {
		t.Errorf("got %s", status)
	}
}

func (p spec) hostPort(t *testing.T) {
	node, addr := p.get(t, "free", "{.spec.nodeName}"), p.get(t, "free", "{.status.hostIP}")
	world.Eventually(t, netTime, func() error {
		answers := []world.Result{p.w.OnLAN("curl", "-s", "-m", "3", world.At(addr, 8088))}
		if !world.OverIPv6() { // nothing leads from 127.0.0.1 to a pod without IPv4
			for _, port := range []string{"8088", "8089"} {
				answers = append(answers, p.w.OnNode(node, "curl", "-s", "-m", "3", "127.0.0.1:"+port))
			}
		}
		for _, r := range answers {
			if !strings.Contains(r.Stdout, "Welcome to nginx!") {
				return fmt.Errorf("no page of nginx, but %q (%v)", r.Output(), r.Err)
			}
		}
		return nil
	})
	if r := p.w.OnLAN("curl", "-s", "-m", "3", world.At(addr, 8089)); r.Err == nil {
		t.Errorf("the loopback's port answers on the LAN: %s", r.Output())
	}
}

func (p spec) hungry(t *testing.T) {
	const ended = "{.status.phase} {.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.message}"
	p.until(t, "hungry", ended, "Failed OOMKilled 137 last words")
}

func (p spec) full(t *testing.T) {
	p.until(t, "full", "{.status.phase} {.status.reason}: {.status.message}", `Failed Evicted: Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `)
}

// until waits until a path of a pod has a value.
func (p spec) until(t *testing.T, pod, path, want string) {
	t.Helper()
	world.Eventually(t, podTime, func() error {
		if got := p.get(t, pod, path); strings.TrimSpace(got) != strings.TrimSpace(want) {
			return fmt.Errorf("pod %s: got %q, want %q", pod, got, want)
		}
		return nil
	})
}

func (p spec) refused(t *testing.T) {
	const waiting = "{.status.containerStatuses[0].state.waiting.reason}"
	p.until(t, "root-refused", waiting, "CreateContainerConfigError")
	wantText(t, p.get(t, "root-refused", "{.status.containerStatuses[0].state.waiting.message}"), "container has runAsNonRoot and image will run as root")
	p.until(t, "unsafe", "{.status.phase} {.status.reason}", "Failed SysctlForbidden")
	p.until(t, "stateful", waiting, "ContainerCreating")
	world.Eventually(t, netTime, func() error {
		events := p.w.Kubectl(t, "get", "events", "--field-selector", "involvedObject.name=stateful", "-o", "custom-columns=:.reason,:.message")
		if !strings.Contains(events, `MountVolume.SetUp failed for volume "data" : persistentVolumeClaim: minato has no volumes of this kind`) {
			return fmt.Errorf("no such event:\n%s", events)
		}
		return nil
	})
}

// writeSeccompProfile puts no-mkdir.json where the instance looks for profiles.
func writeSeccompProfile(t *testing.T, w *world.World) {
	t.Helper()
	dir := filepath.Join(w.StateDir, "seccomp")
	const profile = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "no-mkdir.json"), []byte(profile), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (p spec) seccomp(t *testing.T) {
	wantText(t, p.in(t, "carrier", "mkdir /tmp/folder 2>&1; readlink /proc/self/ns/ipc"), "Operation not permitted\n", link(t, "/proc/self/ns/ipc"))
}

func link(t *testing.T, path string) string {
	t.Helper()
	to, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func (p spec) file(t *testing.T) {
	wantText(t, p.in(t, "carrier", "echo $COLOR"), "green\n")
}

func (p spec) copy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("carried\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.w.Kubectl(t, "cp", filepath.Join(dir, "in"), "carrier:/tmp/there")
	p.w.Kubectl(t, "cp", "carrier:/tmp/there", filepath.Join(dir, "out"))
	if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(got) != "carried\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// streams uses WebSocket, kubectl's first choice, and SPDY, that of clients before 1.31.
func (p spec) streams(t *testing.T) {
	for name, environment := range map[string]string{
		"WebSocket": "", "SPDY": "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false",
	} {
		t.Run(name, func(t *testing.T) {
			r := p.w.Shell("/", "echo typed | "+environment+" kubectl exec -i free -- sh -c 'cat; echo wrong >&2; exit 7'")
			if r.Code() != 7 || r.Stdout != "typed\n" || !strings.HasPrefix(r.Stderr, "wrong\n") {
				t.Errorf("exec: code %d, %q, %q", r.Code(), r.Stdout, r.Stderr)
			}
			r = p.w.Shell("/", environment+` kubectl port-forward pod/free 18080:80 >/dev/null & trap "kill $!" EXIT
for i in $(seq 100); do curl -s -m 3 127.0.0.1:18080 && break; sleep 0.2; done`)
			wantText(t, r.Stdout, "Welcome to nginx!")
		})
	}
}

func (p spec) debug(t *testing.T) {
	term := p.w.Terminal(t, "/", "kubectl debug -it confined --image=thr3a/debugger --image-pull-policy=IfNotPresent --target=main --container=look --profile=general -- bash")
	term.Expect(t, podTime, `[#$] $`)
	wantText(t, term.Do(t, "tr '\\0' ' ' < /proc/1/cmdline"), "sleep infinity")
	term.Type(t, "exit 3\n")
	p.until(t, "confined", "{.status.ephemeralContainerStatuses[0].name} {.status.ephemeralContainerStatuses[0].state.terminated.exitCode}", "look 3")
	if got := p.get(t, "confined", "{.status.phase} {.status.containerStatuses[0].restartCount}"); got != "Running 0" {
		t.Errorf("the pod is %s", got)
	}
}
