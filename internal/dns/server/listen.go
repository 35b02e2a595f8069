package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrPortTaken says that another program has the port on one of the addresses.
var ErrPortTaken = errors.New("port in use")

// sockets are what a server listens on.
type sockets struct {
	udp []*net.UDPConn
	tcp []*net.TCPListener

	inherited bool       // a predecessor reads from them too
	redirects []redirect // from ports that another program has
}

// stop ends the reading of questions. Those that were read are answered.
func (s *sockets) stop() {
	for _, c := range s.udp {
		c.SetReadDeadline(time.Unix(1, 0))
	}
	for _, l := range s.tcp {
		l.Close()
	}
}

func (s *sockets) close() {
	for _, c := range s.udp {
		c.Close()
	}
	for _, l := range s.tcp {
		l.Close()
	}
}

// listen opens all sockets, or takes them over. What was opened is returned even on error.
func (s *Server) listen(ctx context.Context) (*sockets, error) {
	socks := &sockets{}
	for _, a := range s.cfg.Addrs {
		if err := s.open(ctx, socks, netip.AddrPortFrom(a, s.cfg.Port)); err != nil {
			return socks, fmt.Errorf("listen for DNS in the namespace of node %s: %w", s.cfg.Netns, err)
		}
	}
	return socks, s.redirect(socks)
}

func (s *Server) open(ctx context.Context, socks *sockets, at netip.AddrPort) error {
	l, err := s.listenTCP(at, func() (net.Listener, error) {
		return elsewhere(at, func(at netip.AddrPort) (net.Listener, error) { return s.cfg.Netns.Listen(ctx, "tcp", at.String()) })
	})
	if err != nil {
		return taken(at, "TCP", err)
	}
	socks.tcp = append(socks.tcp, l.(*net.TCPListener))
	socks.redirected(at, unix.IPPROTO_TCP, l.Addr())
	here := at // where the first socket is, and so all that share its port
	for i := range s.cfg.Sockets {
		name := fmt.Sprintf("dns/%s/udp/%s/%d", s.cfg.Netns, at, i)
		inherited := true
		c, err := s.cfg.Handover.PacketConn(name, func() (net.PacketConn, error) {
			inherited = false
			if i > 0 {
				return s.listenUDP(ctx, here, false)
			}
			return elsewhere(at, func(at netip.AddrPort) (net.PacketConn, error) { return s.listenUDP(ctx, at, true) })
		})
		if err != nil {
			return taken(at, "UDP", err)
		}
		u := c.(*net.UDPConn)
		if i == 0 {
			here = netip.AddrPortFrom(at.Addr(), u.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			socks.redirected(at, unix.IPPROTO_UDP, u.LocalAddr())
		}
		socks.udp, socks.inherited = append(socks.udp, u), socks.inherited || inherited
		if err := u.SetReadBuffer(1 << 20); err != nil { // room for bursts; the kernel may give less
			return fmt.Errorf("size the receive buffer: %w", err)
		}
		if at.Addr().Is4() {
			if err := unfragmented(u); err != nil {
				return fmt.Errorf("ask for whole datagrams: %w", err)
			}
		}
	}
	return nil
}

// listenUDP opens one of the sockets that share the port. Those with SO_REUSEPORT share it silently with any other
// program of root's that sets it too: one without, the first time, finds out whether somebody is there.
func (s *Server) listenUDP(ctx context.Context, at netip.AddrPort, first bool) (c net.PacketConn, err error) {
	if first {
		probe, err := s.cfg.Netns.ListenPacket(ctx, "udp", at.String())
		if err != nil {
			return nil, err
		}
		probe.Close()
	}
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, cerr)
	}}
	err = s.cfg.Netns.Do(func() (err error) {
		c, err = shared.ListenPacket(ctx, "udp", at.String())
		return err
	})
	return c, err
}

// unfragmented has replies sent with the bit that forbids to fragment them, whatever somebody says of the path (RFC
// 9715): none is longer than fits everywhere, and fragments can be forged. The kernel needs no id for them, either.
// IPv6 has none of this: routers never fragment, and no reply is longer than its least MTU.
func unfragmented(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	})
	return errors.Join(cerr, err)
}

// taken says what to do about a port that is in use.
func taken(at netip.AddrPort, protocol string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: another program has %s %s; `ss -lnp 'sport = %d'` names it: stop it, or let it listen on addresses of its own only",
			ErrPortTaken, protocol, at, at.Port())
	}
	return err
}
