//go:build linux

package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A folder plays each kind of hierarchy, with files as the kernel writes them.
func TestAMeterReadsBothVersions(t *testing.T) {
	one := map[string]string{
		"cpuacct.usage": "1500000000\n", "memory.usage_in_bytes": "9000\n",
		"memory.stat": "rss 1\ninactive_file 2\ntotal_rss 4000\ntotal_inactive_file 1000\ntotal_pgfault 7\ntotal_pgmajfault 3\n",
	}
	two := map[string]string{
		"cpu.stat": "usage_usec 1500000\nuser_usec 1\n", "memory.current": "9000\n",
		"memory.stat": "anon 4000\nfile 5\ninactive_file 1000\npgfault 7\npgmajfault 3\n",
	}
	want := Usage{CPU: 1500 * time.Millisecond, Memory: 9000, WorkingSet: 8000, RSS: 4000, Faults: 7, Major: 3}
	for name, files := range map[string]map[string]string{"version 1": one, "version 2": two} {
		t.Run(name, func(t *testing.T) {
			h := hierarchy{t.TempDir(), name == "version 2"}
			if err := os.Mkdir(filepath.Join(h.root, "pod"), 0o700); err != nil {
				t.Fatal(err)
			}
			for file, content := range files {
				if err := os.WriteFile(filepath.Join(h.root, "pod", file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m := Meter{cpu: h, memory: h}
			if got, err := m.Read("/pod"); err != nil || got != want {
				t.Errorf("Read = %+v, %v, want %+v", got, err, want)
			}
			if _, err := m.Read("/none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Read of no cgroup: %v", err)
			}
		})
	}
}

// TestAMeterReadsTheKernel measures a cgroup of this machine with this test in it, in whatever hierarchies there are.
func TestAMeterReadsTheKernel(t *testing.T) {
	aRoot(t)
	const path = "/minato-cgrouptest-usage"
	t.Cleanup(func() {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	})
	m, err := NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.cpu.make(path), m.memory.make(path)); err != nil {
		t.Fatal(err)
	}
	if u, err := m.Read(path); err != nil || u != (Usage{}) {
		t.Errorf("an empty cgroup uses %+v, %v", u, err)
	}
}
