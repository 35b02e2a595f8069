//go:build linux

package containerd_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"minato/internal/cluster/containerd"
	"minato/internal/cluster/containerd/containerdtest"
	"minato/internal/cluster/images"
)

func TestMain(m *testing.M) { containerdtest.Main(m) }

func connect(t *testing.T, d *containerd.Daemon) (internalapi.RuntimeService, internalapi.ImageManagerService) {
	t.Helper()
	runtime, image, err := d.CRI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.Close(context.Background()); image.Close(context.Background()) })
	return runtime, image
}

// A sandbox in the host's network needs no CNI.
func sandbox(w *containerdtest.World, name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: w.Config.CgroupRoot + "/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}

func runPause(t *testing.T, w *containerdtest.World, runtime internalapi.RuntimeService, image internalapi.ImageManagerService, name string) (sandboxID, containerID string) {
	t.Helper()
	ctx := t.Context()
	id, err := runtime.RunPodSandbox(ctx, sandbox(w, name), "")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.PullImage(ctx, &cri.ImageSpec{Image: images.PauseImage}, nil, sandbox(w, name))
	if err != nil {
		t.Fatal(err)
	}
	container, err := runtime.CreateContainer(ctx, id, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: ref},
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: sandbox(w, name).Linux.SecurityContext.NamespaceOptions,
		}},
	}, sandbox(w, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := runtime.StartContainer(ctx, container); err != nil {
		t.Fatal(err)
	}
	return id, container
}

func containerState(t *testing.T, runtime internalapi.RuntimeService, id string) cri.ContainerState {
	t.Helper()
	status, err := runtime.ContainerStatus(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	return status.Status.State
}

func pid(t *testing.T, config containerd.Config) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(config.RunDir, "containerd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestARunningContainerdIsAdopted(t *testing.T) {
	w := containerdtest.Start(t)
	runtime, image := connect(t, w.Daemon)
	_, container := runPause(t, w, runtime, image, "adopted")
	before := pid(t, w.Config)
	w.Daemon.Close()

	again, err := containerd.Start(t.Context(), w.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if after := pid(t, w.Config); after != before {
		t.Errorf("containerd is process %d, was %d", after, before)
	}
	if state := containerState(t, runtime, container); state != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("container is %v", state)
	}
}

func TestContainerdIsStartedAgainWhenKilledAndContainersRunOn(t *testing.T) {
	w := containerdtest.Start(t)
	runtime, image := connect(t, w.Daemon)
	_, container := runPause(t, w, runtime, image, "killed")
	before := pid(t, w.Config)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		status, err := runtime.ContainerStatus(t.Context(), container, false)
		if err == nil && status.Status.State == cri.ContainerState_CONTAINER_RUNNING && pid(t, w.Config) != before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %v, %v", status, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestANewConfigurationRestartsContainerdUnderItsContainers(t *testing.T) {
	w := containerdtest.Start(t)
	runtime, image := connect(t, w.Daemon)
	_, container := runPause(t, w, runtime, image, "reconfigured")
	before := pid(t, w.Config)
	w.Daemon.Close()
	w.Config.PauseImage = "minato.local/pause:2"
	again, err := containerd.Start(t.Context(), w.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if pid(t, w.Config) == before {
		t.Error("containerd runs with its old configuration")
	}
	if state := containerState(t, runtime, container); state != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("container is %v", state)
	}
}

func TestExitsReportsAContainerThatEnds(t *testing.T) {
	w := containerdtest.Start(t)
	runtime, image := connect(t, w.Daemon)
	ctx, cancel := context.WithCancel(t.Context())
	ids := make(chan string, 10)
	ended := make(chan error, 1)
	go func() { ended <- w.Daemon.Exits(ctx, func(id string) { ids <- id }) }()
	_, container := runPause(t, w, runtime, image, "exits")
	for {
		// The subscription has no acknowledgement, so that the first exit may be missed.
		if err := runtime.StopContainer(t.Context(), container, 1); err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-ids:
			if id != container {
				t.Fatalf("exit of %s, want %s", id, container)
			}
			cancel()
			if err := <-ended; err == nil {
				t.Error("Exits ended without a reason")
			}
			return
		case <-time.After(2 * time.Second):
			t.Log("missed, another try")
			_, container = runPause(t, w, runtime, image, "exits-again")
		}
	}
}

func TestAnUnreachableRegistryFailsAtOnceAndSaysSo(t *testing.T) {
	w := containerdtest.Start(t)
	_, image := connect(t, w.Daemon)
	start := time.Now()
	_, err := image.PullImage(t.Context(), &cri.ImageSpec{Image: "docker.io/library/nosuch:1"}, nil, nil)
	if err == nil {
		t.Fatal("pulled what is nowhere")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the error took %v", took)
	}
	t.Log(err)
}

func TestDeleteRemovesEveryTrace(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(map[bool]string{false: "of a running containerd", true: "after a crash"}[kill], func(t *testing.T) {
			w := containerdtest.Start(t)
			runtime, image := connect(t, w.Daemon)
			runPause(t, w, runtime, image, "deleted")
			w.Daemon.Close()
			if kill {
				syscall.Kill(pid(t, w.Config), syscall.SIGKILL)
			}
			for range 2 { // the second finds nothing
				if err := containerd.Delete(t.Context(), w.Config); err != nil {
					t.Fatal(err)
				}
			}
			for _, dir := range []string{w.Config.Dir, w.Config.RunDir} {
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left", dir)
				}
			}
			leftovers(t, w.Config)
		})
	}
}

func leftovers(t *testing.T, config containerd.Config) {
	t.Helper()
	for _, pattern := range []string{"/run/containerd/s/*", "/run/containerd/runc/*", "/run/netns/*", "/var/lib/cni/results/*", "/sys/fs/cgroup/*" + config.CgroupRoot} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			t.Errorf("left: %v", found)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), config.Dir) || strings.Contains(string(mounts), config.RunDir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	out, err := exec.Command("ps", "-eo", "stat,args").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if !strings.HasPrefix(line, "Z") && (strings.Contains(line, "shim") || strings.Contains(line, "/pause")) {
			t.Errorf("left: %s", line)
		}
	}
}
