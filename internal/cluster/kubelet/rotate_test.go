//go:build linux

package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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

// TestOldInstancesLeaveNoLogs restarts a container often: of the newest two instances logs and messages are kept.
func TestOldInstancesLeaveNoLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].TerminationMessagePath = "/message"
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		logs := filepath.Join(b.k.logDir(b.id), "a")
		for i := range 5 {
			b.within(10*time.Minute, "running", b.restartedTo(int32(i)))
			for _, name := range []string{"%d.log", "%d.log.20260102-030405"} { // as the runtime and rotation write them
				if err := os.WriteFile(filepath.Join(logs, fmt.Sprintf(name, i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.runtime.Exit("a", 1)
		}
		b.within(10*time.Minute, "running", b.restartedTo(5))
		time.Sleep(time.Second)
		left := b.k.folders(logs)
		if want := []string{"4.log", "4.log.20260102-030405"}; !slices.Equal(left, want) {
			t.Errorf("logs %q, want %q", left, want)
		}
		messages := b.k.folders(filepath.Join(b.k.volumes.PodDir(b.id.uid), "containers", "a"))
		if want := []string{"4", "5"}; !slices.Equal(messages, want) {
			t.Errorf("messages %q, want %q", messages, want)
		}
	})
}
