//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits are what the processes of a cgroup get together.
type Limits struct {
	CPUShares uint64 // weight among neighbours, from 2 to 262144
	CPUQuota  int64  // µs of each CPUPeriod; not above 0 is no limit
	CPUPeriod uint64 // µs
	Memory    int64  // bytes; not above 0 is no limit
}

// Set makes the cgroup at path and gives it limits, in those hierarchies that have the controllers. It can be repeated,
// with other limits too.
func Set(path string, l Limits) error {
	roots, err := hierarchies()
	if err != nil {
		return fmt.Errorf("finding cgroup hierarchies: %w", err)
	}
	for _, root := range roots {
		files := l.version1()
		if root.version2 {
			files = l.version2()
		}
		if err := set(root, path, files); err != nil {
			return fmt.Errorf("limits of cgroup %s: %w", path, err)
		}
	}
	return nil
}

// setting is a control file and what to write.
type setting struct{ file, value string }

func (l Limits) version1() []setting {
	return []setting{
		{"cpu.shares", strconv.FormatUint(l.CPUShares, 10)},
		{"cpu.cfs_period_us", strconv.FormatUint(l.CPUPeriod, 10)},
		{"cpu.cfs_quota_us", strconv.FormatInt(orMinus(l.CPUQuota), 10)},
		{"memory.limit_in_bytes", strconv.FormatInt(orMinus(l.Memory), 10)},
	}
}

func orMinus(n int64) int64 {
	if n <= 0 {
		return -1
	}
	return n
}

// version2 turns shares into weights as runc does (KEP-2254).
func (l Limits) version2() []setting {
	word := func(n int64) string {
		if n <= 0 {
			return "max"
		}
		return strconv.FormatInt(n, 10)
	}
	return []setting{
		{"cpu.weight", strconv.FormatUint(1+(max(l.CPUShares, 2)-2)*9999/262142, 10)},
		{"cpu.max", fmt.Sprintf("%s %d", word(l.CPUQuota), l.CPUPeriod)},
		{"memory.max", word(l.Memory)},
	}
}

// controls reports whether a hierarchy has a controller of which a file is one, as "cpu" of "cpu.shares".
func (h hierarchy) controls(file string) bool {
	controller, _, _ := strings.Cut(file, ".")
	if !h.version2 {
		_, err := os.Stat(filepath.Join(h.root, file))
		return err == nil
	}
	controllers, err := os.ReadFile(filepath.Join(h.root, "cgroup.controllers"))
	return err == nil && strings.Contains(" "+strings.TrimSpace(string(controllers))+" ", " "+controller+" ")
}

func set(h hierarchy, path string, files []setting) error {
	made := false
	for _, f := range files {
		if !h.controls(f.file) {
			continue
		}
		if !made {
			if err := h.make(path); err != nil {
				return err
			}
			made = true
		}
		if err := os.WriteFile(filepath.Join(h.root, path, f.file), []byte(f.value), 0); err != nil {
			return err
		}
	}
	return nil
}

// make makes the cgroup and, in version 2, hands the controllers down to it.
func (h hierarchy) make(path string) error {
	dir := h.root
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		if h.version2 {
			for _, controller := range []string{"cpu", "memory"} {
				err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
				if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // not a controller of this hierarchy
					return err
				}
			}
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Unified reports whether the machine has version 2 alone.
func Unified() bool {
	var s unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}
