//go:build linux

package volumes

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
)

// Path is where a volume of a pod is that lives and dies with it.
func (v Volumes) Path(pod *v1.Pod, spec *v1.Volume) string {
	return filepath.Join(v.PodDir(pod.UID), "volumes", spec.Name)
}

// Usage is the space that a folder takes, in bytes; files of several names count once. What is not there takes none, and
// files may come and go meanwhile.
func Usage(dir string) (bytes int64, err error) {
	seen := make(map[uint64]bool)
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && !seen[s.Ino] {
			seen[s.Ino] = s.Nlink > 1
			bytes += s.Blocks * 512
		}
		return nil
	})
	return bytes, err
}
