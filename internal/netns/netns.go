//go:build linux

// Package netns enters network namespaces: it makes them, deletes them, and opens sockets in them.
//
// A socket stays in the namespace in which it was made, so one process can serve many nodes. Entering is by
// setns(2) on a locked thread; `ip netns exec` is never used, because it remounts /sys and hides cgroups.
//
// It does not configure links, addresses or routes.
package netns

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces are mounted, as iproute2 does, so that `ip netns list` shows ours.
const Dir = "/run/netns"

// NS names a network namespace. The zero value is the namespace of the process itself.
// It holds no resources and is safe for concurrent use.
type NS struct{ path string }

// At names the namespace mounted at path. An empty path is the process's own.
func At(path string) NS { return NS{path} }

// Path is the mount point, empty for the process's own namespace.
func (n NS) Path() string { return n.path }

// IsHost reports whether n is the process's own namespace.
func (n NS) IsHost() bool { return n.path == "" }

func (n NS) String() string {
	if n.path == "" {
		return "host"
	}
	return filepath.Base(n.path)
}

// Do runs fn in the namespace, on a thread of its own. What fn starts in other goroutines runs elsewhere.
// A thread that cannot return to its own namespace is given up, never reused.
func (n NS) Do(fn func() error) error {
	if n.path == "" {
		return fn()
	}
	target, err := unix.Open(n.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open network namespace", Path: n.path, Err: err}
	}
	defer unix.Close(target)
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", n.path, err)
	}
	defer func() {
		if unix.Setns(own, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// Listen is net.Listen in the namespace.
func (n NS) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket in the namespace.
func (n NS) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = n.Do(func() error {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// DialContext connects from the namespace. The address must hold an IP address: a name would be looked up
// in another goroutine and so in another namespace.
func (n NS) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}
