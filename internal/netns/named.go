//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Create makes a new namespace and mounts it at path. An existing one is an error that wraps fs.ErrExist.
func Create(path string) error {
	dir := filepath.Dir(path)
	var unlock func()
	for unlock == nil {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder of network namespaces: %w", err)
		}
		var err error
		if unlock, err = lock(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // removed since, with its last namespace
			return err
		}
	}
	defer unlock()
	if dir == Dir {
		if err := mountFolder(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	f.Close()
	if err := mountNew(path); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

// mountNew mounts a new namespace at a file.
func mountNew(path string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("unshare network namespace: %w", err)
			return
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			done <- fmt.Errorf("mount network namespace at %s: %w", path, err)
			return
		}
		done <- nil
	}()
	return <-done
}

// Delete unmounts the namespace at path. It vanishes when its last process and socket are gone. Deleting what
// is not there is no error.
func Delete(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	unlock, err := lock(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer unlock()
	switch err := os.Remove(path); {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another program has mounted something over %s, below which %s is: run `umount %s`, then this again: %w", dir, path, dir, err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) == 0 { // iproute2 makes all of it again, as Create does
		if dir == Dir {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		_ = os.Remove(dir)
	}
	return nil
}

// lock keeps others out of the folder, iproute2 too, which takes the same lock.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder of network namespaces: %w", err)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	var locked, now fs.FileInfo
	if err == nil {
		locked, err = f.Stat()
	}
	if err == nil {
		now, err = os.Stat(dir)
	}
	if err == nil && !os.SameFile(locked, now) { // who had the lock has removed it, and somebody made another
		f.Close()
		return lock(dir)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock folder of network namespaces: %w", err)
	}
	return func() { f.Close() }, nil
}

// mountFolder makes Dir, while it is empty, a mount of its own with shared mounts, as the first `ip netns add` does. If
// iproute2 did it later, its mount would cover ours, and nobody could remove them any more.
func mountFolder() error {
	if there, err := os.ReadDir(Dir); err != nil || len(there) > 0 {
		return err
	}
	err := unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // no mount yet
		if err = unix.Mount(Dir, Dir, "", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("make %s a mount of its own: %w", Dir, err)
	}
	return nil
}
