//go:build linux

// Package containerdtest runs tests against the real containerd in a world of their own: network, mount and PID
// namespaces, an own /run, no uplink. When the test process ends, everything in that world has ended too.
//
// It needs root, containerd and runc, and skips the test otherwise. It does not isolate cgroups: a World's are below its Config.CgroupRoot and go with it.
package containerdtest

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/cluster/containerd"
	"minato/internal/cluster/images"
)

const inside = "MINATO_CONTAINERDTEST"

// Main is for TestMain: it runs the tests in their own world where it can make one.
func Main(m *testing.M) {
	if reason() != "" {
		os.Exit(m.Run())
	}
	if os.Getenv(inside) != "" {
		if err := furnish(); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(1, exit.ExitCode()))
	}
	if err != nil {
		panic(err)
	}
}

// reason says why the tests cannot run here, empty if they can.
func reason() string {
	if os.Geteuid() != 0 {
		return "needs root, for namespaces and mounts"
	}
	for _, program := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return "needs " + program + ": apt-get install containerd"
		}
	}
	return ""
}

// furnish makes the namespaces fit for use.
func furnish() error {
	if err := os.MkdirAll("/var/lib/cni", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for target, fs := range map[string]string{"/proc": "proc", "/run": "tmpfs", "/var/lib/cni": "tmpfs"} {
		if err := unix.Mount(fs, target, fs, 0, ""); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// World is a containerd with an image store in front of it.
type World struct {
	Config containerd.Config
	Daemon *containerd.Daemon
	Store  *images.Store
	Log    *slog.Logger
}

// Start makes a World, and deletes it when the test ends.
func Start(t *testing.T) *World {
	t.Helper()
	if r := reason(); r != "" {
		t.Skip(r)
	}
	w := Prepare(t)
	daemon, err := containerd.Start(t.Context(), w.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Close)
	w.Daemon = daemon
	return w
}

// Prepare is Start without starting containerd.
func Prepare(t *testing.T) *World {
	t.Helper()
	if r := reason(); r != "" {
		t.Skip(r)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir := t.TempDir()
	store, err := images.Open(filepath.Join(dir, "images"), log)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.EnsurePause(); err != nil {
		t.Fatal(err)
	}
	mirror := httptest.NewServer(store.Mirror())
	t.Cleanup(mirror.Close)
	run, err := os.MkdirTemp("/run", "containerdtest-") // t.TempDir is too long for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	config := containerd.Config{
		Dir: filepath.Join(dir, "containerd"), RunDir: run,
		CgroupRoot: "/minato-" + filepath.Base(run), PauseImage: images.PauseImage, Mirror: mirror.URL, Log: log,
	}
	t.Cleanup(func() {
		if err := containerd.Delete(context.Background(), config); err != nil { // the test's own context has ended
			t.Error(err)
		}
	})
	return &World{Config: config, Store: store, Log: log}
}
