//go:build linux

package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

func aRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	roots, err := hierarchies()
	if err != nil || len(roots) == 0 {
		t.Fatalf("hierarchies: %v, %v", roots, err)
	}
	return roots[len(roots)-1].root
}

func TestRemoveTakesTheTree(t *testing.T) {
	dir := filepath.Join(aRoot(t), "minato-cgrouptest")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove("/minato-cgrouptest"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", dir)
	}
}

func TestRemoveRefusesALivingProcess(t *testing.T) {
	dir := filepath.Join(aRoot(t), "minato-cgrouptest-busy")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := Remove("/minato-cgrouptest-busy"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Remove = %v, want busy", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := Remove("/minato-cgrouptest-busy"); err != nil {
		t.Error(err)
	}
}

func TestRemoveRefusesTheRoot(t *testing.T) {
	for _, path := range []string{"", "/", "/.", "/a/.."} {
		if err := Remove(path); err == nil {
			t.Errorf("Remove(%q) was done", path)
		}
	}
}
