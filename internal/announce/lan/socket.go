//go:build linux

package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// ErrNoLink says that the node has no link with its address, as while it is being made.
var ErrNoLink = errors.New("no link has the node's address")

// MAC is an Ethernet address.
type MAC [6]byte

// Everybody is Ethernet's broadcast address.
var Everybody = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Socket sends and receives the packets of one protocol on one link of a network namespace, without their Ethernet
// headers. It stays there, whichever thread uses it, and is safe for concurrent use.
type Socket struct {
	MAC   MAC // of the link
	Index int // of the link, in its namespace

	file     *os.File
	protocol uint16
}

// OpenSocket opens the link that has the address; there may be none, ErrNoLink. protocol is an EtherType, and filter
// says which packets come through to the process.
func OpenSocket(ns netns.NS, addr netip.Addr, protocol uint16, filter []bpf.Instruction) (s *Socket, err error) {
	err = ns.Do(func() error {
		link, err := linkOf(addr)
		if err != nil {
			return err
		}
		if len(link.HardwareAddr) != len(MAC{}) {
			return fmt.Errorf("link %s is not Ethernet, so nobody asks there", link.Name)
		}
		s = &Socket{Index: link.Index, MAC: MAC(link.HardwareAddr), protocol: networkOrder(protocol)}
		fd, err := bound(link, s.protocol, filter)
		if err != nil {
			return err
		}
		s.file = os.NewFile(uintptr(fd), "lan:"+link.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening the LAN in %s: %w", ns, err)
	}
	return s, nil
}

// linkOf finds a link in the namespace of the calling thread.
func linkOf(addr netip.Addr) (*net.Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr && l.Flags&net.FlagLoopback == 0 {
				return &l, nil
			}
		}
	}
	return nil, fmt.Errorf("%w %s", ErrNoLink, addr)
}

// bound makes a socket that has its filter before it receives anything.
func bound(link *net.Interface, protocol uint16, filter []bpf.Instruction) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("making a packet socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := attach(fd, filter); err != nil {
		return 0, err
	}
	if wireless(link) {
		promiscuous := unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous); err != nil {
			return 0, fmt.Errorf("hearing all of a wireless link: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}); err != nil {
		return 0, fmt.Errorf("binding to link %s: %w", link.Name, err)
	}
	return fd, nil
}

func attach(fd int, filter []bpf.Instruction) error {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return fmt.Errorf("assembling the filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		return fmt.Errorf("attaching the filter: %w", err)
	}
	return nil
}

// wireless links of some machines, Raspberry Pis among them, lose broadcasts unless they are promiscuous
// (metallb#284, raspberrypi/linux#2677). The kernel ends that with the socket.
func wireless(link *net.Interface) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(link.Name)
	const siocGIWName = 0x8B01 // include/uapi/linux/wireless.h: answered by wireless links alone
	return err == nil && unix.IoctlIfreq(fd, siocGIWName, ifr) == nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// Receive reads the next packet, cut to the length of buf. After Close its error wraps os.ErrClosed.
func (s *Socket) Receive(buf []byte) (n int, err error) {
	if n, err = s.file.Read(buf); err != nil {
		return 0, fmt.Errorf("receiving on the LAN: %w", err)
	}
	return n, nil
}

// SetReadDeadline bounds Receive, as that of os.File.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.file.SetReadDeadline(t) }

// Send sends a packet to one machine of the link, or to many.
func (s *Socket) Send(to MAC, packet []byte) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	addr := &unix.SockaddrLinklayer{Protocol: s.protocol, Ifindex: s.Index, Halen: uint8(len(to))}
	copy(addr.Addr[:], to[:])
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), packet, 0, addr)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("sending on the LAN: %w", err)
	}
	return nil
}

// Close ends a Receive that waits.
func (s *Socket) Close() error { return s.file.Close() }
