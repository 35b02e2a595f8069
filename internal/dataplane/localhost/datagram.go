package localhost

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultIdle is what conntrack gives UDP that is not a stream (nf_conntrack_udp_timeout). Beyond it the node chooses
	// an endpoint anew in any case.
	DefaultIdle = 30 * time.Second
	// DefaultSessions bounds the sockets of a port.
	DefaultSessions = 256
	// mostDatagram is more than the largest payload that UDP can carry.
	mostDatagram = 65535
)

// relay passes datagrams on between the clients of one port and the same port of the node's own address. Each client has
// a socket towards the node, so that replies are told apart and connection tracking sees as many clients as there are.
type relay struct {
	s    *Server
	conn net.PacketConn
	at   netip.AddrPort

	mu       sync.Mutex
	sessions map[netip.AddrPort]*session // by client
}

type session struct {
	net.Conn
	used atomic.Int64 // when there was a datagram, in nanoseconds since 1970
}

func (c *session) touch() { c.used.Store(time.Now().UnixNano()) }

// run passes on what clients send until the socket is closed, and then ends all sessions.
func (r *relay) run() {
	defer r.endAll()
	buf := make([]byte, mostDatagram)
	for {
		n, from, err := r.conn.ReadFrom(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !r.s.pause(r.at, err) {
				return
			}
			continue
		}
		if err := r.send(from.(*net.UDPAddr).AddrPort(), buf[:n]); err != nil && !r.s.pause(r.at, err) {
			return
		}
	}
}

// send passes on one datagram. One that nftables refuse is lost, as any may be; for one whose session has just ended there
// is a new one.
func (r *relay) send(client netip.AddrPort, datagram []byte) error {
	for {
		c, err := r.session(client)
		if err != nil || c == nil {
			return err
		}
		c.touch()
		if _, err := c.Write(datagram); !errors.Is(err, net.ErrClosed) {
			return nil
		}
		r.end(client, c)
	}
}

// session finds a client's, or makes it; nil where the node has no address to go to.
func (r *relay) session(client netip.AddrPort) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.sessions[client]; c != nil {
		return c, nil
	}
	to, ok := r.s.target(r.at)
	if !ok {
		return nil, nil
	}
	if len(r.sessions) >= r.s.cfg.Sessions {
		r.endQuietest()
	}
	conn, err := r.s.cfg.Netns.DialContext(r.s.ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	c := &session{Conn: conn}
	c.touch()
	r.sessions[client] = c
	r.s.work.Go(func() { r.answers(client, c) })
	return c, nil
}

// answers passes on what a client is answered, until nobody has said anything for some time.
func (r *relay) answers(client netip.AddrPort, c *session) {
	defer r.end(client, c)
	defer context.AfterFunc(r.s.ctx, func() { c.Close() })()
	to := net.UDPAddrFromAddrPort(client)
	buf := make([]byte, mostDatagram)
	for {
		until := time.Unix(0, c.used.Load()).Add(r.s.cfg.Idle)
		_ = c.SetReadDeadline(until)
		n, err := c.Read(buf)
		switch {
		case err == nil:
			c.touch()
			_, _ = r.conn.WriteTo(buf[:n], to)
		case errors.Is(err, os.ErrDeadlineExceeded) && c.used.Load() > until.Add(-r.s.cfg.Idle).UnixNano():
		default: // quiet, closed, or the endpoint refuses: the next datagram begins anew
			return
		}
	}
}

func (r *relay) end(client netip.AddrPort, c *session) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[client] == c {
		delete(r.sessions, client)
	}
}

// endQuietest makes room for one. The mutex is held.
func (r *relay) endQuietest() {
	var client netip.AddrPort
	var quietest *session
	for a, c := range r.sessions {
		if quietest == nil || c.used.Load() < quietest.used.Load() {
			client, quietest = a, c
		}
	}
	quietest.Close()
	delete(r.sessions, client)
}

func (r *relay) endAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.sessions {
		c.Close()
	}
}
