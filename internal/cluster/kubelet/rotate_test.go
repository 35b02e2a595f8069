//go:build linux

package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestALargeLogIsRotatedAndOldOnesGo(t *testing.T) {
	pod := simple(v1.RestartPolicyAlways)
	b := newBench(t, pod, 1)
	dir := filepath.Join(b.k.logDir(identify(pod)), "a")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "3.log")
	for _, old := range []string{"20200101-000001", "20200101-000002", "20200101-000003", "20200101-000004"} {
		if err := os.WriteFile(file+"."+old, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	container := &cri.Container{Id: "c", Metadata: &cri.ContainerMetadata{Name: "a", Attempt: 3}, Labels: b.k.labels(nil, identify(pod))}
	for size, want := range map[int64]int{logSize - 1: 0, logSize: 1} {
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		before := b.runtime.Calls("ReopenContainerLog")
		if err := b.k.rotateLog(t.Context(), container); err != nil {
			t.Fatal(err)
		}
		if got := b.runtime.Calls("ReopenContainerLog") - before; got != want {
			t.Errorf("a log of %d bytes was rotated %d times, want %d", size, got, want)
		}
	}
	files, err := filepath.Glob(file + ".*")
	if err != nil || len(files) != logFiles-1 {
		t.Errorf("rotated files %v, %v", files, err)
	}
	if _, err := os.Stat(file + ".20200101-000001"); !os.IsNotExist(err) {
		t.Errorf("the oldest is left: %v", err)
	}
}
