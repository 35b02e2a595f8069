//go:build linux

package nfnl

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// A batch has to fit into the send buffer whole: that of a table with 250,000 endpoints which replaces another does.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 4 << 20
)

// Conn is a netlink socket in one network namespace, in which it stays. It is safe for concurrent use; calls
// follow one another.
type Conn struct {
	mu  sync.Mutex
	fd  int
	buf []byte
	seq uint32
}

// Open opens a socket in the namespace. It needs CAP_NET_ADMIN there.
func Open(ns netns.NS) (*Conn, error) {
	c := &Conn{buf: make([]byte, partBuffer)}
	if err := ns.Do(c.open); err != nil {
		return nil, fmt.Errorf("open netlink socket for nf_tables in namespace %s: %w", ns, err)
	}
	return c, nil
}

func (c *Conn) open() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer},
		{unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1},
		{unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("bind", err)
	}
	c.fd = fd
	return nil
}

// Close closes the socket. What was committed stays.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// Commit applies the batch as one transaction. A refusal is an *Error, and nothing was applied; an error that is
// ErrUnknownOutcome leaves that open. An empty batch is no error. The batch is not changed and may be sent again.
func (c *Conn) Commit(b *Batch) error {
	out, err := b.finish()
	if errors.Is(err, errEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for range interrupted {
		if err = c.commit(out, b.msgs); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return err
}

// partBuffer takes one part of a dump. The kernel makes parts of up to 32 KiB, for readers that have room for as much
// (netlink_dump), and walks a hash set from its head for each: half of it doubles the time, more saves none.
const partBuffer = 64 << 10

// interrupted is how often a call that the kernel gave up for a signal or a race is made again.
const interrupted = 10

// commit sends and reads the answers. The kernel works through a batch inside the send, so all answers are there
// when it returns and no read waits.
func (c *Conn) commit(out []byte, msgs []int) error {
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nf_tables: send batch of %d bytes: %w", len(out), err)
	}
	var first *Error
	acked := false
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			continue // answers were lost; whether it matters shows at the end
		case errors.Is(err, unix.EAGAIN):
			return outcome(first, acked)
		case err != nil:
			return fmt.Errorf("nf_tables: %w: %w", ErrUnknownOutcome, err)
		}
		var ack bool
		first, ack = failures(c.buf[:n], out, msgs, first)
		acked = acked || ack
	}
}

// outcome: any refusal means that the whole batch was undone; no answer to the last message means nothing.
func outcome(first *Error, acked bool) error {
	switch {
	case first != nil:
		return first
	case !acked:
		return fmt.Errorf("nf_tables: %w", ErrUnknownOutcome)
	}
	return nil
}
