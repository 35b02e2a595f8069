//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what the processes of a cgroup have used, and what they hold.
type Usage struct {
	CPU        time.Duration // since the cgroup was made
	Memory     uint64        // bytes, with the page cache
	WorkingSet uint64        // bytes, without what the kernel takes back at once
	RSS        uint64        // bytes that no file stands behind
	Faults     uint64        // of pages, since the cgroup was made
	Major      uint64        // those of Faults that had to read
}

// Meter reads what cgroups use. It may be used concurrently.
type Meter struct{ cpu, memory hierarchy }

// NewMeter finds the hierarchies that count.
func NewMeter() (Meter, error) {
	roots, err := hierarchies()
	if err != nil {
		return Meter{}, fmt.Errorf("finding cgroup hierarchies: %w", err)
	}
	var m Meter
	for _, h := range roots {
		if h.controls("cpuacct.usage") && !h.version2 || h.version2 && h.controls("cpu.stat") {
			m.cpu = h
		}
		if h.controls("memory.stat") {
			m.memory = h
		}
	}
	if m.cpu.root == "" || m.memory.root == "" {
		return Meter{}, errors.New("no cgroup hierarchy counts CPU and memory")
	}
	return m, nil
}

// Read reads what the cgroup at path uses, all below it included. Its error wraps fs.ErrNotExist where there is none.
func (m Meter) Read(path string) (u Usage, err error) {
	unit, file, of := time.Nanosecond, "cpuacct.usage", ""
	if m.cpu.version2 {
		unit, file, of = time.Microsecond, "cpu.stat", "usage_usec"
	}
	cpu, err := numbers(filepath.Join(m.cpu.root, path, file))
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu[of]) * unit
	current, prefix, anonymous := "memory.usage_in_bytes", "total_", "total_rss"
	if m.memory.version2 {
		current, prefix, anonymous = "memory.current", "", "anon"
	}
	dir := filepath.Join(m.memory.root, path)
	memory, err := numbers(filepath.Join(dir, current))
	if err != nil {
		return u, err
	}
	stat, err := numbers(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return u, err
	}
	u.Memory, u.RSS = memory[""], stat[anonymous]
	u.WorkingSet = u.Memory - min(u.Memory, stat[prefix+"inactive_file"]) // cadvisor's rule
	u.Faults, u.Major = stat[prefix+"pgfault"], stat[prefix+"pgmajfault"]
	return u, nil
}

// numbers reads a file of lines "name number", or of one number, whose name is empty.
func numbers(file string) (map[string]uint64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := make(map[string]uint64)
	for line := range strings.Lines(string(data)) {
		name, number, named := strings.Cut(strings.TrimSpace(line), " ")
		if !named {
			name, number = "", name
		}
		if found[name], err = strconv.ParseUint(number, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return found, nil
}
