package localhost

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
)

// accept passes connections on until the listener is closed.
func (s *Server) accept(l net.Listener, at netip.AddrPort) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !s.pause(at, err) {
				return
			}
		default:
			s.work.Go(func() { s.pass(c.(*net.TCPConn), at) })
		}
	}
}

// pass joins a client with the port's target.
func (s *Server) pass(client *net.TCPConn, at netip.AddrPort) {
	defer client.Close()
	defer context.AfterFunc(s.ctx, func() { client.Close() })()
	to, ok := s.target(at)
	if !ok {
		return
	}
	c, err := s.cfg.Netns.DialContext(s.ctx, "tcp", to.String())
	if err != nil {
		_ = client.SetLinger(0) // refused, as the client would have been
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	defer context.AfterFunc(s.ctx, func() { server.Close() })()
	var both sync.WaitGroup
	both.Go(func() { copyTo(server, client) })
	both.Go(func() { copyTo(client, server) })
	both.Wait()
}

// copyTo ends one direction. A broken one breaks both, so that neither end waits for the other.
func copyTo(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}
