//go:build linux

// Package garbage removes unpacked images that nobody uses when the disk fills up (pkg/kubelet/images).
//
// The rules and figures are the kubelet's; but one collector serves all nodes, because they share one set of images. It
// does not touch images in use, those that Keep names, and what a user has loaded, and it does not know containers' own
// layers and logs.
package garbage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kubelet's imageGCHighThresholdPercent, imageGCLowThresholdPercent, imageMinimumGCAge and its period.
const (
	High   = 85 // percent of the disk from which on images go
	Low    = 80 // until so much is used
	MinAge = 2 * time.Minute
	Period = 5 * time.Minute
)

// Disk is where images are.
type Disk struct{ Capacity, Available uint64 } // bytes

// DiskOf is the file system of a folder.
func DiskOf(dir string) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return Disk{}, fmt.Errorf("disk of images: %w", err)
	}
	return Disk{fs.Blocks * uint64(fs.Bsize), fs.Bavail * uint64(fs.Bsize)}, nil
}

// excess is how many bytes must go.
func (d Disk) excess() uint64 {
	if d.Capacity == 0 || 100-d.Available*100/d.Capacity < High {
		return 0
	}
	return d.Capacity*(100-Low)/100 - d.Available
}

// Collector removes images. All fields but the unexported ones are needed.
type Collector struct {
	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	// Keep are references, as docker.io/library/nginx:latest, of images that stay.
	Keep func() (map[string]bool, error)
	Disk func() (Disk, error)
	Log  *slog.Logger

	seen map[string]*record // by the image's id
}

// record is what is known of an image since this program began.
type record struct{ first, used time.Time }

// Run looks at images and disk each Period until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for {
		if err := c.Collect(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.Log.Warn("removing unused images", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Collect notes which images are used now and, where the disk is too full, removes the others, those first that were not
// used for the longest time.
func (c *Collector) Collect(ctx context.Context, now time.Time) error {
	images, err := c.Images.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	used, err := c.used(ctx)
	if err != nil {
		return err
	}
	keep, err := c.Keep()
	if err != nil {
		return err
	}
	c.note(images, used, now)
	disk, err := c.Disk()
	if err != nil {
		return err
	}
	excess := disk.excess()
	if excess == 0 {
		return nil
	}
	freed, err := c.remove(ctx, c.candidates(images, keep, now), excess)
	if err == nil && freed < excess {
		err = fmt.Errorf("the disk is full to %d %%: of %d bytes that should go %d were images that nobody uses", 100-disk.Available*100/disk.Capacity, excess, freed)
	}
	return err
}

// used are the ids and references of images that containers were made from.
func (c *Collector) used(ctx context.Context) (map[string]bool, error) {
	containers, err := c.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	used := make(map[string]bool)
	for _, container := range containers {
		used[container.ImageRef], used[container.GetImage().GetImage()] = true, true
	}
	return used, nil
}

func (c *Collector) note(images []*cri.Image, used map[string]bool, now time.Time) {
	before := c.seen
	c.seen = make(map[string]*record, len(images))
	for _, image := range images {
		r := before[image.Id]
		if r == nil {
			r = &record{first: now}
		}
		if names(image, used) {
			r.used = now
		}
		c.seen[image.Id] = r
	}
}

// names reports whether one of an image's names is in a set.
func names(image *cri.Image, set map[string]bool) bool {
	in := func(name string) bool { return set[name] }
	return in(image.Id) || slices.ContainsFunc(image.RepoTags, in) || slices.ContainsFunc(image.RepoDigests, in)
}

// candidates are the images that may go, in this order.
func (c *Collector) candidates(images []*cri.Image, keep map[string]bool, now time.Time) (all []*cri.Image) {
	for _, image := range images {
		r := c.seen[image.Id]
		if !image.Pinned && !names(image, keep) && r.used.Before(now) && now.Sub(r.first) >= MinAge {
			all = append(all, image)
		}
	}
	slices.SortFunc(all, func(a, b *cri.Image) int {
		x, y := c.seen[a.Id], c.seen[b.Id]
		if order := x.used.Compare(y.used); order != 0 {
			return order
		}
		return x.first.Compare(y.first)
	})
	return all
}

// remove removes images until so many bytes are free.
func (c *Collector) remove(ctx context.Context, images []*cri.Image, excess uint64) (freed uint64, err error) {
	var errs []error
	for _, image := range images {
		if freed >= excess {
			break
		}
		if err := c.Images.RemoveImage(ctx, &cri.ImageSpec{Image: image.Id}); err != nil {
			errs = append(errs, fmt.Errorf("removing image %s: %w", image.Id, err))
			continue
		}
		c.Log.Info("removed an image that nobody uses, for the disk is full", "image", image.RepoTags, "id", image.Id, "bytes", image.Size)
		delete(c.seen, image.Id)
		freed += image.Size
	}
	return freed, errors.Join(errs...)
}
