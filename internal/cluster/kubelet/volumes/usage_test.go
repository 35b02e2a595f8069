//go:build linux

package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestUsageCountsWhatTakesSpaceOnce(t *testing.T) {
	dir := t.TempDir()
	empty, err := Usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	err = errors.Join(err, os.WriteFile(file, make([]byte, 1<<20), 0o600), os.Link(file, filepath.Join(dir, "again")), sparse.Truncate(1<<30), sparse.Close())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Usage(dir); err != nil || got-empty < 1<<20 || got-empty > 1<<20+64<<10 {
		t.Errorf("%d bytes (%v), want about 1 MiB", got-empty, err)
	}
	if got, err := Usage(filepath.Join(dir, "absent")); got != 0 || err != nil {
		t.Errorf("of what is not there: %d, %v", got, err)
	}
}
