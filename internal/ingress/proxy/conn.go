package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// dialError says that a backend could not be reached, so that nothing was sent to it.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// dial connects to a backend from the node's namespace, by the route that the node itself has to pods.
func (s *Server) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Connect)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	c, err := s.cfg.Netns.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, dialError{fmt.Errorf("connect to backend %s: %w", addr, err)}
	}
	return newQuietConn(c, s.cfg.Timeouts.Backend), nil
}

// deadlineStep is how exact the time of silence is kept. Setting a deadline costs more than looking at the clock.
const deadlineStep = 16 // parts of the time

// quietConn fails when nothing was read or written for a time. A response may take long after a request that took
// long, hence one deadline for both ways.
type quietConn struct {
	net.Conn
	limit time.Duration
	armed atomic.Int64 // when the deadline was set, in Unix nanoseconds
}

func newQuietConn(c net.Conn, limit time.Duration) *quietConn {
	return &quietConn{Conn: c, limit: limit}
}

func (c *quietConn) arm() error {
	now := time.Now()
	if now.UnixNano()-c.armed.Load() < int64(c.limit/deadlineStep) {
		return nil
	}
	c.armed.Store(now.UnixNano())
	return c.SetDeadline(now.Add(c.limit))
}

func (c *quietConn) Read(b []byte) (int, error) {
	if err := c.arm(); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *quietConn) Write(b []byte) (int, error) {
	if err := c.arm(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// CloseWrite tells the other side that no more comes: a WebSocket's end.
func (c *quietConn) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return net.ErrClosed
}

// stallListener accepts connections that end when the client takes nothing for a time. Reading is bounded by
// http.Server between requests, and by requestBody within them.
type stallListener struct {
	net.Listener
	limit time.Duration
}

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: c, limit: l.limit}, nil
}

type stallConn struct {
	net.Conn
	limit time.Duration
	armed atomic.Int64
}

func (c *stallConn) Write(b []byte) (int, error) {
	if now := time.Now(); now.UnixNano()-c.armed.Load() >= int64(c.limit/deadlineStep) {
		c.armed.Store(now.UnixNano())
		if err := c.Conn.SetWriteDeadline(now.Add(c.limit)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// SetDeadline and SetWriteDeadline are what http.Server uses for a TLS handshake; the next Write sets its own again.
func (c *stallConn) SetDeadline(t time.Time) error {
	c.armed.Store(0)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline is like SetDeadline.
func (c *stallConn) SetWriteDeadline(t time.Time) error {
	c.armed.Store(0)
	return c.Conn.SetWriteDeadline(t)
}
