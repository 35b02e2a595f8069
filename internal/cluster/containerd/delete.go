//go:build linux

package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"minato/internal/cluster/kubelet/cgroup"
	"minato/internal/cluster/mounts"
)

// cniResults is where libcni keeps the results of all CNI users; containerd cannot be told otherwise.
const cniResults = "/var/lib/cni/results"

// sharedDirs are folders that containerd and libcni make whatever their configuration, innermost first. They are
// removed when nobody has anything in them.
var sharedDirs = []string{"/run/containerd/s", "/run/containerd/fifo", "/run/containerd", cniResults, "/var/lib/cni"}

// Delete stops what still runs and removes every trace of the instance's containerd: processes, mounts, sockets,
// folders. Where there is none it does nothing. It goes on after errors and returns them all.
func Delete(ctx context.Context, cfg Config) error {
	errs := []error{cfg.stop(ctx)}
	for _, dir := range []string{cfg.RunDir, cfg.Dir} {
		errs = append(errs, os.RemoveAll(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("deleting containerd: %w", err)
	}
	return nil
}

// Stop stops all pods of the instance, without grace beyond a second, and containerd; also what a crash of this
// program or of containerd left of either. Images stay.
func Stop(ctx context.Context, cfg Config) error {
	if err := cfg.stop(ctx); err != nil {
		return fmt.Errorf("stopping containerd: %w", err)
	}
	return nil
}

// stop ends pods, containerd, and what a crash may have left of either.
func (c Config) stop(ctx context.Context) error {
	ids := c.containers()
	var errs []error
	if pid := c.running(); pid != 0 {
		if err := c.removePods(ctx); err != nil {
			c.Log.Warn("pods could not be removed by CRI and are killed", "err", err)
		}
		errs = append(errs, terminate(ctx, pid))
	}
	errs = append(errs, c.killContainers(ctx), c.killShims(ctx), c.removeSockets(), mounts.RemoveBelow(c.Dir, c.RunDir), c.removeResults(ids))
	if c.CgroupRoot != "" {
		errs = append(errs, cgroup.Remove(c.CgroupRoot))
	}
	for _, dir := range []string{c.state(), c.runcRoot()} {
		errs = append(errs, os.RemoveAll(dir))
	}
	for _, dir := range sharedDirs {
		err := os.Remove(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) { // a mount point
			errs = append(errs, err)
		}
	}
	for _, file := range []string{c.pidFile(), c.Socket(), c.Socket() + ".ttrpc"} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removePods stops and removes all sandboxes in the orderly way, so that CNI detaches them.
func (c Config) removePods(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	runtime, err := criclient.NewRemoteRuntimeService(ctx, "unix://"+c.Socket(), 20*time.Second, nil, false)
	if err != nil {
		return err
	}
	defer runtime.Close(ctx)
	if err := stopContainers(ctx, runtime); err != nil {
		return err
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, sandbox := range sandboxes {
		g.Go(func() error {
			if err := runtime.StopPodSandbox(ctx, sandbox.Id); err != nil {
				return err
			}
			return runtime.RemovePodSandbox(ctx, sandbox.Id)
		})
	}
	return g.Wait()
}

// stopContainers gives every container a second after its stop signal.
func stopContainers(ctx context.Context, runtime internalapi.RuntimeService) error {
	running := &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}
	containers, err := runtime.ListContainers(ctx, running)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, container := range containers {
		wg.Go(func() { runtime.StopContainer(ctx, container.Id, 1) }) // StopPodSandbox kills what this does not stop
	}
	wg.Wait()
	return nil
}

// bundles is where containerd keeps what shims run, a folder per container.
func (c Config) bundles() string {
	return filepath.Join(c.state(), "io.containerd.runtime.v2.task", "k8s.io")
}

// containers is the ids of all containers that have a bundle.
func (c Config) containers() map[string]bool {
	ids := make(map[string]bool)
	entries, _ := os.ReadDir(c.bundles()) // absent when nothing ran
	for _, entry := range entries {
		ids[entry.Name()] = true
	}
	return ids
}

// killContainers kills what runc still knows of, with its cgroups.
func (c Config) killContainers(ctx context.Context) error {
	root := filepath.Join(c.runcRoot(), "k8s.io")
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		out, err := exec.CommandContext(ctx, "runc", "--root", root, "delete", "--force", entry.Name()).CombinedOutput()
		if err != nil {
			errs = append(errs, fmt.Errorf("runc delete %s: %w: %s", entry.Name(), err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}

// killShims kills the shims of this instance, which are known by the socket that they report to.
func (c Config) killShims(ctx context.Context) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || !bytes.Contains(args, []byte("containerd-shim")) || !bytes.Contains(args, []byte("\x00"+c.Socket()+"\x00")) {
			continue
		}
		ended := watch(ctx, pid)
		syscall.Kill(pid, syscall.SIGKILL)
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// removeSockets removes the shims' sockets, which they put into a folder of all containerds.
func (c Config) removeSockets() error {
	files, err := filepath.Glob(filepath.Join(c.bundles(), "*", "address"))
	if err != nil {
		return err
	}
	for _, file := range files {
		address, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if socket, ok := strings.CutPrefix(string(address), "unix://"); ok {
			if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// removeResults removes libcni's results of our containers: it leaves them when a DEL never came.
func (c Config) removeResults(ids map[string]bool) error {
	files, err := filepath.Glob(filepath.Join(cniResults, "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // another instance's, gone meanwhile
		}
		var result struct {
			ContainerID string `json:"containerId"`
		}
		if json.Unmarshal(data, &result) != nil || !ids[result.ContainerID] {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
