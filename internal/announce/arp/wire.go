//go:build linux

package arp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// errNoLink says that the node has no link with its address, as while it is being made.
var errNoLink = errors.New("no link has the node's address")

// wire sends and receives ARP packets on one link. receive returns an error that wraps os.ErrClosed after close.
type wire interface {
	mac() mac
	receive() (packet, error)
	send(to mac, p packet) error
	close() error
}

// socket is a wire on a link of a network namespace. It stays there, whichever thread uses it.
type socket struct {
	file  *os.File
	index int
	own   mac
}

// openSocket opens the link that has the address.
func openSocket(ns netns.NS, addr netip.Addr) (w *socket, err error) {
	err = ns.Do(func() error {
		link, err := linkOf(addr)
		if err != nil {
			return err
		}
		if len(link.HardwareAddr) != len(mac{}) {
			return fmt.Errorf("link %s is not Ethernet, so nobody asks by ARP there", link.Name)
		}
		w = &socket{index: link.Index, own: mac(link.HardwareAddr)}
		fd, err := bound(link, requestsOnly)
		if err != nil {
			return err
		}
		w.file = os.NewFile(uintptr(fd), "arp:"+link.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("opening ARP in %s: %w", ns, err)
	}
	return w, nil
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
	return nil, fmt.Errorf("%w %s", errNoLink, addr)
}

// requestsOnly lets ARP requests for IPv4 over Ethernet through which came to everybody or to this link: not what the
// link sends itself, nor what it overhears. The packet begins behind the Ethernet header.
var requestsOnly = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: unix.PACKET_BROADCAST, SkipTrue: 7},
	bpf.LoadAbsolute{Off: 0, Size: 4}, // kinds of address
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x00010800, SkipTrue: 5},
	bpf.LoadAbsolute{Off: 4, Size: 2}, // their lengths
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0604, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(request), SkipTrue: 1},
	bpf.RetConstant{Val: packetLen},
	bpf.RetConstant{Val: 0},
}

// bound makes a socket that has its filter before it receives anything.
func bound(link *net.Interface, filter []bpf.Instruction) (fd int, err error) {
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
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: link.Index}); err != nil {
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

func (s *socket) mac() mac { return s.own }

func (s *socket) receive() (packet, error) {
	var buf [packetLen]byte
	for {
		n, err := s.file.Read(buf[:])
		if err != nil {
			return packet{}, fmt.Errorf("receiving ARP: %w", err)
		}
		if p, ok := parse(buf[:n]); ok {
			return p, nil
		}
	}
}

func (s *socket) send(to mac, p packet) error {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	addr := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: s.index, Halen: uint8(len(to))}
	copy(addr.Addr[:], to[:])
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), p.bytes(), 0, addr)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("sending ARP: %w", err)
	}
	return nil
}

func (s *socket) close() error { return s.file.Close() }
