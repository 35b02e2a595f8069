//go:build linux

package instance

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"minato/test/world"
)

// processes are those of the instance whose command line has what in it.
func processes(t *testing.T, w *world.World, what string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(line), what) || !strings.Contains(string(line), w.Name) && !strings.Contains(string(line), w.StateDir) {
			continue // or it ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
