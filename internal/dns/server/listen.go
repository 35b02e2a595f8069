package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrPortTaken says that another program has the port on one of the addresses.
var ErrPortTaken = errors.New("port in use")

// sockets are what a server listens on.
type sockets struct {
	udp []*net.UDPConn
	tcp []*net.TCPListener
}

func (s *sockets) close() {
	for _, c := range s.udp {
		c.Close()
	}
	for _, l := range s.tcp {
		l.Close()
	}
}

// listen opens all sockets. What was opened is returned even on error.
func (s *Server) listen(ctx context.Context) (*sockets, error) {
	socks := &sockets{}
	err := s.cfg.Netns.Do(func() error {
		for _, a := range s.cfg.Addrs {
			if err := socks.open(ctx, netip.AddrPortFrom(a, s.cfg.Port), s.cfg.Sockets); err != nil {
				return fmt.Errorf("listen for DNS in the namespace of node %s: %w", s.cfg.Netns, err)
			}
		}
		return nil
	})
	return socks, err
}

func (s *sockets) open(ctx context.Context, at netip.AddrPort, n int) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	if err != nil {
		return taken(at, "TCP", err)
	}
	s.tcp = append(s.tcp, l.(*net.TCPListener))
	// Sockets with SO_REUSEPORT share the port silently with any other program of root's that sets it too. One
	// without it finds out first whether somebody is there.
	probe, err := new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return taken(at, "UDP", err)
	}
	probe.Close()
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, cerr)
	}}
	for range n {
		c, err := shared.ListenPacket(ctx, "udp", at.String())
		if err != nil {
			return taken(at, "UDP", err)
		}
		u := c.(*net.UDPConn)
		s.udp = append(s.udp, u)
		if err := u.SetReadBuffer(1 << 20); err != nil { // room for bursts; the kernel may give less
			return fmt.Errorf("size the receive buffer: %w", err)
		}
	}
	return nil
}

// taken says what to do about a port that is in use.
func taken(at netip.AddrPort, protocol string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: another program has %s %s; `ss -lnp 'sport = %d'` names it: stop it, or let it listen on addresses of its own only",
			ErrPortTaken, protocol, at, at.Port())
	}
	return err
}
