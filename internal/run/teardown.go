package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/cluster/containerd"
	"minato/internal/cluster/kubeconfig"
	"minato/internal/cluster/mounts"
	"minato/internal/cluster/nodes"
	"minato/internal/instance"
)

// stopPatience is how long a process may take to end after it was asked to.
const stopPatience = 20 * time.Second

// Down stops the instance: its process if one runs, its pods, containerd and network. State and loaded images stay.
// It works as well when the process died before.
func Down(ctx context.Context, inst instance.Instance, out io.Writer) error {
	p := newProgress(out)
	unlock, err := stopProcess(ctx, inst, p)
	if err != nil {
		return err
	}
	defer unlock()
	return teardown(ctx, inst, p)
}

// Delete is Down, and removes the state, the run folder and the context in the user's kubeconfig.
func Delete(ctx context.Context, inst instance.Instance, out io.Writer) error {
	p := newProgress(out)
	cfg, _, err := inst.Load()
	if err != nil {
		p.say("going on without the configuration: %v", err)
	}
	unlock, err := stopProcess(ctx, inst, p)
	if err != nil {
		return err
	}
	defer unlock()
	if err := teardown(ctx, inst, p); err != nil {
		return err
	}
	return p.step("state", func() error {
		if cfg.Kubeconfig != "" {
			if err := kubeconfig.Remove(cfg.Kubeconfig, inst.KubeContext()); err != nil {
				return err
			}
		}
		return errors.Join(inst.Remove(), os.RemoveAll(inst.RunDir), removeIfEmpty(filepath.Dir(inst.RunDir)), removeIfEmpty(filepath.Dir(inst.StateDir)))
	})
}

func removeIfEmpty(dir string) error {
	if filepath.Base(dir) != "minato" {
		return nil
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// stopProcess ends the process that has the instance and takes its lock.
func stopProcess(ctx context.Context, inst instance.Instance, p *progress) (unlock func(), err error) {
	if err := os.MkdirAll(inst.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w", err)
	}
	unlock, err = inst.Lock()
	if !errors.Is(err, instance.ErrRunning) {
		return unlock, err
	}
	pid, pidErr := inst.Holder()
	if pidErr != nil {
		return nil, pidErr
	}
	err = p.step(fmt.Sprintf("process %d to end", pid), func() error {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		deadline := time.Now().Add(stopPatience)
		for {
			if unlock, err = inst.Lock(); !errors.Is(err, instance.ErrRunning) {
				return err
			}
			if time.Now().After(deadline) {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("kill process %d: %w", pid, err)
				}
				deadline = deadline.Add(stopPatience)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return unlock, err
}

// teardown removes everything that runs and every trace in the kernel. The caller holds the lock.
func teardown(ctx context.Context, inst instance.Instance, p *progress) error {
	log := slog.New(slog.DiscardHandler)
	var errs []error
	errs = append(errs, p.step("containers", func() error {
		return containerd.Stop(ctx, containerd.Config{Dir: inst.ContainerdDir(), RunDir: inst.ContainerdRunDir(), CgroupRoot: inst.CgroupRoot(), Log: log})
	}))
	errs = append(errs, p.step("network", func() error {
		return nodes.Delete(ctx, nodes.Config{Name: inst.Name, StateDir: inst.StateDir, Log: log})
	}))
	errs = append(errs, p.step("volumes", func() error { return mounts.RemoveBelow(inst.StateDir) }))
	return errors.Join(errs...)
}
