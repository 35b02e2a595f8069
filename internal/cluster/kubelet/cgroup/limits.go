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
		if err := set(root, path, root.settings(l)); err != nil {
			return fmt.Errorf("limits of cgroup %s: %w", path, err)
		}
	}
	return nil
}

// setting is a control file and what to write.
type setting struct{ file, value string }

// settings are limits in the files of the hierarchy's version.
func (h hierarchy) settings(l Limits) []setting {
	if h.version2 {
		return l.version2()
	}
	return l.version1()
}

func (l Limits) version1() []setting {
	return []setting{
		{"cpu.shares", strconv.FormatUint(l.CPUShares, 10)},
		{"cpu.cfs_period_us", strconv.FormatUint(l.CPUPeriod, 10)},
		{"cpu.cfs_quota_us", strconv.FormatInt(orMinus(l.CPUQuota), 10)},
		{"memory.limit_in_bytes", strconv.FormatInt(orMinus(l.Memory), 10)},
	}
}

// Get reads the limits of the cgroup at path, as far as hierarchies have the controllers. CPUShares that version 2 has
// rounded come back as the smallest that round to the same. Its error wraps fs.ErrNotExist where there is no cgroup.
func Get(path string) (Limits, error) {
	roots, err := hierarchies()
	if err != nil {
		return Limits{}, fmt.Errorf("finding cgroup hierarchies: %w", err)
	}
	var l Limits
	for _, root := range roots {
		for _, f := range root.settings(l) {
			if !root.controls(f.file) {
				continue
			}
			content, err := os.ReadFile(filepath.Join(root.root, path, f.file))
			if err == nil {
				err = l.parse(setting{f.file, strings.TrimSpace(string(content))})
			}
			if err != nil {
				return Limits{}, fmt.Errorf("reading the limits of cgroup %s: %w", path, err)
			}
		}
	}
	return l, nil
}

// parse takes over what a control file says.
func (l *Limits) parse(s setting) (err error) {
	number := func(word string) (n int64) {
		if word == "max" {
			return 0
		}
		n, parseErr := strconv.ParseInt(word, 10, 64)
		err = errors.Join(err, parseErr)
		return max(n, 0)
	}
	switch s.file {
	case "cpu.shares":
		l.CPUShares = uint64(number(s.value))
	case "cpu.weight":
		l.CPUShares = uint64(2 + ((number(s.value)-1)*262142+9998)/9999)
	case "cpu.cfs_period_us":
		l.CPUPeriod = uint64(number(s.value))
	case "cpu.cfs_quota_us":
		l.CPUQuota = number(s.value)
	case "cpu.max":
		quota, period, _ := strings.Cut(s.value, " ")
		l.CPUQuota, l.CPUPeriod = number(quota), uint64(number(period))
	case "memory.limit_in_bytes", "memory.max":
		if l.Memory = number(s.value); l.Memory > 1<<60 { // version 1 has no word for none
			l.Memory = 0
		}
	}
	return err
}

// Raised is l with each limit raised to that of other where this is higher. Both are of one CPUPeriod.
func (l Limits) Raised(other Limits) Limits {
	higher := func(a, b int64) int64 {
		if a <= 0 || b <= 0 {
			return 0
		}
		return max(a, b)
	}
	return Limits{
		CPUShares: max(l.CPUShares, other.CPUShares), CPUPeriod: other.CPUPeriod,
		CPUQuota: higher(l.CPUQuota, other.CPUQuota), Memory: higher(l.Memory, other.Memory),
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
