//go:build linux

// Package cgroup keeps the cgroups of pods, the parents of their containers': it makes them with the pod's limits, and
// removes them in every hierarchy, which the runtime never does. It also reads what cgroups use.
//
// It does not know containers' own cgroups and moves no processes: runc does.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Remove removes the cgroup at path, as "/minato/pod1", and all below it, in every mounted hierarchy, version 1
// and 2. What is not there is no error. A process that is just ending keeps its cgroup busy for a moment, which is
// waited for; a living one is an error that wraps EBUSY.
func Remove(path string) error {
	if clean := filepath.Clean("/" + path); clean == "/" {
		return fmt.Errorf("refusing to remove the root cgroup")
	}
	roots, err := hierarchies()
	if err != nil {
		return fmt.Errorf("finding cgroup hierarchies: %w", err)
	}
	var errs []error
	for _, root := range roots {
		errs = append(errs, removeTree(filepath.Join(root.root, path)))
	}
	return errors.Join(errs...)
}

// hierarchy is a mounted cgroup file system.
type hierarchy struct {
	root     string
	version2 bool
}

func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var found []hierarchy
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			found = append(found, hierarchy{f[1], f[2] == "cgroup2"})
		}
	}
	return found, nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &fs.PathError{Op: "remove cgroup", Path: dir, Err: err}
		}
	}
}
