//go:build linux

package manifests

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch calls changed after each change of a folder, which must be there, until ctx ends. A file counts when it has been
// written to its end, or moved here whole.
func Watch(ctx context.Context, dir string, changed func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	const mask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	changed() // what changed before
	for buffer := make([]byte, 4096); ; {
		if _, err := events.Read(buffer); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watching %s: %w", dir, err)
		}
		changed()
	}
}
