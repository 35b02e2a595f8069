package run

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAMachineWithoutMemoryCgroupIsTold(t *testing.T) {
	const header = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  error
	}{
		"version 2":               {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n"}, nil},
		"version 1":               {map[string]string{"proc/cgroups": header + "memory\t4\t1\t1\n"}, nil},
		"hybrid":                  {map[string]string{"sys/fs/cgroup/cgroup.controllers": "hugetlb\n", "proc/cgroups": header + "memory\t4\t1\t1\n"}, nil},
		"Raspberry Pi, version 2": {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu io pids\n", "proc/cgroups": header + "memory\t0\t60\t0\n"}, errNoMemoryCgroup},
		"Raspberry Pi, version 1": {map[string]string{"proc/cgroups": header + "cpu\t3\t1\t1\nmemory\t0\t60\t0\n"}, errNoMemoryCgroup},
		"no cgroups":              {nil, errNoMemoryCgroup},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.files {
				file = filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := preflight(root); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
