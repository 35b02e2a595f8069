//go:build linux

package kubelet_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"minato/internal/netns"
)

// exec runs a command in a pod's container and fails the test if it fails.
func (w *world) exec(podName string, command ...string) {
	w.t.Helper()
	if _, stderr, err := w.config.Runtime.ExecSync(w.t.Context(), w.containerID(podName), command, 5*time.Second); err != nil {
		w.t.Fatalf("exec %v: %v %s", command, err, stderr)
	}
}

func (w *world) containerID(podName string) string {
	return strings.TrimPrefix(w.get(podName).Status.ContainerStatuses[0].ContainerID, "containerd://")
}

// remove takes a file away from a running container.
func (w *world) remove(podName, file string) {
	w.t.Helper()
	status, err := w.config.Runtime.ContainerStatus(w.t.Context(), w.containerID(podName), true)
	if err != nil {
		w.t.Fatal(err)
	}
	info := status.Info["info"]
	_, rest, _ := strings.Cut(info, `"pid":`)
	pid, _, _ := strings.Cut(rest, ",")
	if err := os.Remove(filepath.Join("/proc", pid, "root", file)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sandboxes() int {
	w.t.Helper()
	list, err := w.config.Runtime.ListPodSandbox(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}

// leftovers fails if anything of any pod is left.
func (w *world) leftovers() {
	w.t.Helper()
	if n := w.sandboxes(); n != 0 {
		w.t.Errorf("%d sandboxes are left", n)
	}
	containers, err := w.config.Runtime.ListContainers(context.Background(), &cri.ContainerFilter{})
	if err != nil || len(containers) != 0 {
		w.t.Errorf("containers are left: %v, %v", containers, err)
	}
	for _, pattern := range []string{w.config.StateDir + "/pods/*", w.config.PodLogsDir + "/*", "/sys/fs/cgroup/*" + w.config.CgroupRoot + "/*/", "/run/netns/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, path := range found {
			if fi, err := os.Stat(path); err == nil && fi.IsDir() {
				w.t.Errorf("%s is left", path)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.Contains(string(mounts), w.config.StateDir) {
		w.t.Errorf("mounts are left:\n%s", mounts)
	}
}

// logFile is the log of a pod's first container, without the kubelet's help.
func (w *world) logFile(podName string) string {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for {
		files, err := filepath.Glob(filepath.Join(w.config.PodLogsDir, "*_"+podName+"_*", "main", "0.log"))
		if err != nil {
			w.t.Fatal(err)
		}
		if len(files) == 1 {
			if data, err := os.ReadFile(files[0]); err == nil && strings.Count(string(data), "\n") > 1 {
				return string(data)
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no log of %s: %v", podName, files)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// virtualNode is a namespace with an address of its own.
func virtualNode(t *testing.T) netns.NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	path := "/run/netns/kubelettest"
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(path) })
	ns := netns.At(path)
	err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(32, 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func loopbackIsUp(t *testing.T, ns netns.NS) bool {
	t.Helper()
	up := false
	err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		up = err == nil && lo.Attrs().Flags&net.FlagUp != 0
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return up
}
