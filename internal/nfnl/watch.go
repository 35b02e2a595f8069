//go:build linux

package nfnl

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// Multicast groups of linux/netfilter/nfnetlink_compat.h.
const (
	groupConntrackNew     = 1
	groupConntrackDestroy = 3
)

// WatchFlows calls began and ended for the flows of the namespace from now on, of all protocols and families, until
// ctx ends; then it returns nil. What began before may end unseen: the kernel notes only for new flows that somebody
// is told. When more happens than is read, missed is called.
func WatchFlows(ctx context.Context, ns netns.NS, began, ended func(Flow), missed func()) error {
	var f *os.File
	if err := ns.Do(func() (err error) { f, err = openWatch(); return err }); err != nil {
		return err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, partBuffer)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			missed()
			continue
		case err != nil:
			return wrap(err, "watch flows")
		}
		eachMessage(buf[:n], func(typ uint16, family Family, attrs []byte) {
			if Attr(attrs, ctaZone) != nil {
				return
			}
			switch typ {
			case unix.NFNL_SUBSYS_CTNETLINK << 8: // IPCTNL_MSG_CT_NEW
				began(decodeFlow(family, attrs))
			case ctDelete:
				ended(decodeFlow(family, attrs))
			}
		})
	}
}

func openWatch() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1<<(groupConntrackNew-1) | 1<<(groupConntrackDestroy-1)})
	}
	if err != nil {
		unix.Close(fd)
		return nil, wrap(err, "watch flows")
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// eachMessage calls yield for each message of nfnetlink in b.
func eachMessage(b []byte, yield func(typ uint16, family Family, attrs []byte)) {
	for len(b) >= 20 {
		l := int(binary.NativeEndian.Uint32(b))
		if l < 20 || l > len(b) {
			return
		}
		yield(binary.NativeEndian.Uint16(b[4:]), Family(b[16]), b[20:l])
		b = b[min((l+3)&^3, len(b)):]
	}
}
