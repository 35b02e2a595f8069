package run

import (
	"minato/internal/cluster/images/garbage"
)

// startGarbage removes images that nobody uses when the disk fills up. What a user has loaded stays, and so does the
// pause image, which is in the same store.
func (u *instanceRun) startGarbage() error {
	cri, unpacked, err := u.containerd.CRI(u.ctx)
	if err != nil {
		return err
	}
	collector := garbage.Collector{
		Runtime: cri, Images: unpacked, Log: u.opt.Log,
		Keep: func() (map[string]bool, error) {
			loaded, err := u.store.List()
			keep := make(map[string]bool, len(loaded))
			for _, image := range loaded {
				keep[image.Ref] = true
			}
			return keep, err
		},
		Disk: func() (garbage.Disk, error) { return garbage.DiskOf(u.inst.ContainerdDir()) },
	}
	u.goRun("garbage of images", collector.Run)
	return nil
}
