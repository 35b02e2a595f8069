package server

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the number of messages for each system call; more gains nothing.
const batch = 32

// mmsghdr is the kernel's struct mmsghdr: a message, and how many bytes of it there are.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// mmsg reads and writes UDP messages in batches with recvmmsg and sendmmsg. golang.org/x/net does too, and allocates
// an address for each message; this allocates nothing after newMmsg. The socket never waits, so the calls are raw: the
// runtime would give the processor away after 20 µs, and a batch takes longer. It belongs to one goroutine.
type mmsg struct {
	raw     syscall.RawConn
	in      [batch]mmsghdr
	inVec   [batch]unix.Iovec
	from    [batch]unix.RawSockaddrInet6 // IPv4 addresses fit too
	bufs    [batch][]byte
	replies [batch][]byte
	to      [batch]int // whose reply it is: the index of the message that was read
	out     outgoingMessages

	receive, transmit func(fd uintptr) bool // made once: closures allocate
	sending           []mmsghdr             // for transmit
	n                 int                   // of the last call
	errno             syscall.Errno
}

func newMmsg(c *net.UDPConn, size int) (*mmsg, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	m := &mmsg{raw: raw}
	for i := range batch {
		m.bufs[i], m.replies[i] = make([]byte, size), make([]byte, 0, size)
		m.inVec[i].Base = &m.bufs[i][0]
		m.inVec[i].SetLen(size)
		m.in[i].hdr.Iov = &m.inVec[i]
		m.in[i].hdr.SetIovlen(1)
		m.in[i].hdr.Name = (*byte)(unsafe.Pointer(&m.from[i]))
	}
	m.receive = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.in[0])), batch, 0, 0, 0)
		m.n, m.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	m.transmit = func(fd uintptr) bool {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&m.sending[0])), uintptr(len(m.sending)), 0, 0, 0)
		m.n, m.errno = int(n), errno
		return errno != unix.EAGAIN
	}
	return m, nil
}

// read waits for messages and returns how many there are. It fails with net.ErrClosed when the socket is closed.
func (m *mmsg) read() (int, error) {
	for i := range m.in {
		m.in[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		if err := m.raw.Read(m.receive); err != nil {
			return 0, err
		}
		switch m.errno {
		case 0:
			return m.n, nil
		case unix.EINTR:
		default:
			return 0, m.errno
		}
	}
}

// message is the i-th that was read. It is valid until the next read.
func (m *mmsg) message(i int) []byte { return m.bufs[i][:m.in[i].n] }

// sender is the address of the i-th message that was read.
func (m *mmsg) sender(i int) netip.AddrPort {
	a := &m.from[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	if a.Family == unix.AF_INET {
		a4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(a4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), port)
}

// reply makes b the k-th message to write, to the sender of the i-th that was read.
func (m *mmsg) reply(k, i int, b []byte) { m.replies[k], m.to[k] = b, i }

// write sends the first n replies. One that cannot be sent (its client is unreachable, say) is left out: the others
// can. It fails with net.ErrClosed when the socket is closed.
func (m *mmsg) write(n int) error {
	for rest := m.pack(n); len(rest) > 0; {
		sent, err := m.send(rest)
		switch {
		case err == nil:
			rest = rest[sent:]
		case errors.Is(err, net.ErrClosed):
			return err
		case !errors.Is(err, unix.EINTR):
			if err := m.sendSingly(&rest[0].hdr); err != nil {
				return err
			}
			rest = rest[1:]
		}
	}
	return nil
}

// send is one call of sendmmsg, which waits for room in the socket. It returns how many messages were sent.
func (m *mmsg) send(all []mmsghdr) (sent int, err error) {
	m.sending = all
	if err := m.raw.Write(m.transmit); err != nil {
		return 0, err
	}
	if m.errno != 0 {
		return 0, m.errno
	}
	return m.n, nil
}
