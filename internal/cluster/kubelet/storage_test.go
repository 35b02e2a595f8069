//go:build linux

package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestAPodThatUsesTooMuchOfTheDiskIsEvicted(t *testing.T) {
	storage := func(quantity string) v1.ResourceList {
		return v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse(quantity)}
	}
	size := resource.MustParse("1Mi")
	for name, c := range map[string]struct {
		limit         string // of the container
		size          *resource.Quantity
		file, written int // bytes in the volume and in the container's layer
		message       string
	}{
		"within all limits":    {"4Mi", &size, 1 << 18, 1 << 20, ""},
		"without limits":       {"", nil, 8 << 20, 8 << 20, ""},
		"a volume":             {"", &size, 2 << 20, 0, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		"a container":          {"4Mi", nil, 0, 5 << 20, `Container a exceeded its local ephemeral storage limit "4Mi". `},
		"volume and container": {"4Mi", nil, 2 << 20, 3 << 20, "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := simple(v1.RestartPolicyAlways)
				pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: c.size}}}}
				if c.limit != "" {
					pod.Spec.Containers[0].Resources.Limits = storage(c.limit)
				}
				b := newBench(t, pod, 1)
				b.runtime.Stops, b.runtime.Written = time.Hour, uint64(c.written)
				ctx, cancel := context.WithCancel(t.Context())
				var watching sync.WaitGroup
				watching.Go(func() { b.k.watchStorage(ctx) })
				defer func() { cancel(); watching.Wait() }()
				b.start()
				defer b.stop()
				b.within(time.Second, "running", b.running)
				file := filepath.Join(b.k.volumes.Path(b.pod(), &pod.Spec.Volumes[0]), "file")
				if err := os.WriteFile(file, make([]byte, c.file), 0o600); err != nil {
					t.Fatal(err)
				}
				if c.message == "" {
					time.Sleep(5 * storagePeriod)
					if !b.running() {
						t.Errorf("status %+v", b.pod().Status)
					}
					return
				}
				b.within(storagePeriod+5*time.Second, "evicted", func() bool { return b.pod().Status.Phase == v1.PodFailed })
				if s := b.pod().Status; s.Reason != "Evicted" || s.Message != c.message {
					t.Errorf("status %+v", s)
				}
				if b.events.count("Evicted: "+c.message) != 1 {
					t.Errorf("events %q", b.events.texts)
				}
			})
		})
	}
}
