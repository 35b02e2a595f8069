//go:build linux

package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
)

// Errors that a user can act upon.
var (
	// ErrNotInstalled says that there is no containerd or no runc on the PATH.
	ErrNotInstalled = errors.New("install containerd: apt-get install containerd")
	// ErrStart says that containerd was started and did not come up; the error holds the end of its log.
	ErrStart = errors.New("containerd did not start")
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	callTimeout  = 2 * time.Minute // kubelet's --runtime-request-timeout
)

// Daemon is a running containerd. Its methods are safe for concurrent use.
type Daemon struct {
	cfg        Config
	cancel     context.CancelFunc
	supervised sync.WaitGroup
}

// Start adopts the instance's containerd where one runs, else starts it, and returns when its CRI answers. It is
// restarted when it dies, until Close or Stop; ctx limits the start alone.
func Start(ctx context.Context, cfg Config) (*Daemon, error) {
	v, err := installed(ctx)
	if err != nil {
		return nil, err
	}
	changed, err := cfg.write(v)
	if err != nil {
		return nil, fmt.Errorf("writing containerd's configuration: %w", err)
	}
	pid := cfg.running()
	if pid != 0 && changed { // its containers do not notice
		if err := terminate(ctx, pid); err != nil {
			return nil, fmt.Errorf("restarting containerd with its new configuration: %w", err)
		}
		pid = 0
	}
	start, adopted := time.Now(), pid != 0
	supervising, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var ended <-chan struct{}
	if adopted {
		ended = watch(supervising, pid)
	} else if ended, err = cfg.launch(); err != nil {
		cancel()
		return nil, err
	}
	if err := cfg.ready(ctx, ended); err != nil {
		cancel()
		return nil, err
	}
	cfg.Log.Info("containerd runs", "adopted", adopted, "version", fmt.Sprintf("%d.%d", v.major, v.minor), "after", time.Since(start).Round(time.Millisecond))
	d := &Daemon{cfg: cfg, cancel: cancel}
	d.supervised.Go(func() { d.supervise(supervising, ended) })
	return d, nil
}

// installed finds the programs and asks containerd for its version.
func installed(ctx context.Context) (version, error) {
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return version{}, fmt.Errorf("%w (%w)", ErrNotInstalled, err)
		}
	}
	out, err := exec.CommandContext(ctx, "containerd", "--version").Output()
	if err != nil {
		return version{}, fmt.Errorf("asking containerd for its version: %w", err)
	}
	v, err := parseVersion(string(out))
	if err == nil && (v.major < 1 || v.major == 1 && v.minor < 6) {
		err = fmt.Errorf("containerd %d.%d is too old, 1.6 is needed: %w", v.major, v.minor, ErrNotInstalled)
	}
	return v, err
}

// running is the process that the pid file names, if it is this instance's containerd, else 0.
func (c Config) running() int {
	data, err := os.ReadFile(c.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !bytes.Contains(args, []byte("\x00"+c.file()+"\x00")) {
		return 0
	}
	return pid
}

// launch starts containerd in a session of its own, so that it outlives us and our terminal. The channel is closed
// when it ends.
func (c Config) launch() (<-chan struct{}, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if fi, err := os.Stat(c.logFile()); err == nil && fi.Size() > 8<<20 {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(c.logFile(), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening containerd's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", c.file(), "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process; reaps it
		cmd.Wait()
		close(ended)
	}()
	if err := replace(c.pidFile(), strconv.Itoa(cmd.Process.Pid)); err != nil {
		cmd.Process.Kill()
		return nil, fmt.Errorf("writing containerd's pid file: %w", err)
	}
	return ended, nil
}

// watch closes the channel when a process ends that may not be our child.
func watch(ctx context.Context, pid int) <-chan struct{} {
	ended := make(chan struct{})
	go func() { // ends with the process or ctx
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for alive(pid) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		close(ended)
	}()
	return ended
}

// alive reports whether a process runs. A zombie does not: its parent may never reap it.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") ")) // the name is in parentheses, the state follows
	return len(rest) > 0 && rest[0] != 'Z' && rest[0] != 'X'
}

// ready waits until CRI answers and its runtime is ready to run pods.
func (c Config) ready(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = c.ping(ctx); last == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%w; the end of %s:\n%s", ErrStart, c.logFile(), tail(c.logFile(), 10))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w: %w; the end of %s:\n%s", ErrStart, ctx.Err(), last, c.logFile(), tail(c.logFile(), 10))
		case <-tick.C:
		}
	}
}

func (c Config) ping(ctx context.Context) error {
	if _, err := os.Stat(c.Socket()); err != nil {
		return err
	}
	runtime, err := criclient.NewRemoteRuntimeService(ctx, "unix://"+c.Socket(), time.Second, nil, false)
	if err != nil {
		return err
	}
	return runtime.Close(ctx)
}

// tail is the last lines of a file, as far as it can be read.
func tail(file string, lines int) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// supervise starts containerd again whenever it ends, at most once a second.
func (d *Daemon) supervise(ctx context.Context, ended <-chan struct{}) {
	var launched time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(launched.Add(time.Second))):
		}
		d.cfg.Log.Error("containerd ended and is started again", "log", tail(d.cfg.logFile(), 3))
		launched = time.Now()
		next, err := d.cfg.launch()
		if err != nil {
			d.cfg.Log.Error("containerd", "err", err)
			continue // ended is closed still
		}
		ended = next
	}
}

// CRI connects to the runtime. The connections survive a restart of containerd; the caller closes them.
func (d *Daemon) CRI(ctx context.Context) (internalapi.RuntimeService, internalapi.ImageManagerService, error) {
	endpoint := "unix://" + d.cfg.Socket()
	runtime, err := criclient.NewRemoteRuntimeService(ctx, endpoint, callTimeout, nil, false)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to containerd: %w", err)
	}
	images, err := criclient.NewRemoteImageService(ctx, endpoint, callTimeout, nil, false)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connecting to containerd: %w", err), runtime.Close(ctx))
	}
	return runtime, images, nil
}

// Close ends supervision and leaves containerd and its containers running.
func (d *Daemon) Close() {
	d.cancel()
	d.supervised.Wait()
}

// Stop stops all pods of the instance, without grace beyond a second, and containerd. Images stay.
func (d *Daemon) Stop(ctx context.Context) error {
	d.Close()
	return d.cfg.stop(ctx)
}

// terminate ends a process, by SIGKILL where SIGTERM does not.
func terminate(ctx context.Context, pid int) error {
	ended := watch(ctx, pid)
	syscall.Kill(pid, syscall.SIGTERM)
	kill := time.NewTimer(stopTimeout)
	defer kill.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-kill.C:
			syscall.Kill(pid, syscall.SIGKILL)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
