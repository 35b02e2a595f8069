//go:build linux

package garbage

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// store plays the runtime: images of 10 bytes each, containers, and a disk that removing an image makes emptier.
type store struct {
	internalapi.ImageManagerService
	images     []*cri.Image
	containers []*cri.Container
	removed    []string
	free       uint64 // of 100
}

func (s *store) ListImages(context.Context, *cri.ImageFilter) ([]*cri.Image, error) {
	return s.images, nil
}

type runtime struct {
	internalapi.RuntimeService
	store *store
}

func (r runtime) ListContainers(context.Context, *cri.ContainerFilter) ([]*cri.Container, error) {
	return r.store.containers, nil
}

func (s *store) RemoveImage(_ context.Context, image *cri.ImageSpec) error {
	s.removed = append(s.removed, image.Image)
	s.images = slices.DeleteFunc(s.images, func(i *cri.Image) bool { return i.Id == image.Image })
	s.free += 10
	return nil
}

func (s *store) add(id string) {
	s.images = append(s.images, &cri.Image{Id: id, RepoTags: []string{"docker.io/library/" + id + ":latest"}, Size: 10})
}

func newCollector(s *store) *Collector {
	return &Collector{
		Runtime: runtime{store: s}, Images: s, Log: slog.New(slog.DiscardHandler),
		Keep: func() (map[string]bool, error) {
			return map[string]bool{"docker.io/library/loaded:latest": true}, nil
		},
		Disk: func() (Disk, error) { return Disk{Capacity: 100, Available: s.free}, nil },
	}
}

func TestImagesGoWhenTheDiskIsFullAndNoEarlier(t *testing.T) {
	for free, want := range map[uint64]int{16: 0, 15: 1, 10: 1, 9: 2, 0: 2} { // 20 are to be free
		s := &store{free: free}
		for _, id := range []string{"a", "b", "c"} {
			s.add(id)
		}
		c, now := newCollector(s), time.Unix(0, 0)
		if err := c.Collect(t.Context(), now); len(s.removed) > 0 {
			t.Errorf("%d free: images of unknown age went: %v, %v", free, s.removed, err)
		}
		if err := c.Collect(t.Context(), now.Add(MinAge)); err != nil || len(s.removed) != want {
			t.Errorf("%d free: %v went, %v, want %d", free, s.removed, err, want)
		}
	}
}

func TestTheLongestUnusedGoesFirst(t *testing.T) {
	s := &store{free: 50}
	for _, id := range []string{"never", "long", "lately"} {
		s.add(id)
	}
	c, now := newCollector(s), time.Unix(0, 0)
	for _, id := range []string{"lately", "long", "lately"} {
		s.containers = []*cri.Container{{ImageRef: id}}
		now = now.Add(time.Hour)
		if err := c.Collect(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	s.containers, s.free = nil, 0
	if err := c.Collect(t.Context(), now.Add(time.Hour)); err != nil || !slices.Equal(s.removed, []string{"never", "long"}) {
		t.Errorf("%v went, %v", s.removed, err)
	}
}

func TestWhatIsUsedLoadedOrPinnedStays(t *testing.T) {
	s := &store{containers: []*cri.Container{{ImageRef: "used", State: cri.ContainerState_CONTAINER_EXITED}, {Image: &cri.ImageSpec{Image: "docker.io/library/named:latest"}}}}
	for _, id := range []string{"used", "named", "loaded", "pinned", "other"} {
		s.add(id)
	}
	s.images[3].Pinned = true
	c, now := newCollector(s), time.Unix(0, 0)
	if err := c.Collect(t.Context(), now); err == nil || !strings.Contains(err.Error(), "full to 100 %") {
		t.Errorf("a full disk is not told: %v", err)
	}
	_ = c.Collect(t.Context(), now.Add(MinAge)) // told again
	if !slices.Equal(s.removed, []string{"other"}) {
		t.Errorf("%v went", s.removed)
	}
}
