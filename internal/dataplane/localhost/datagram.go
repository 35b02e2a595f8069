package localhost

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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
//
// A successor of the process gets the sockets towards the node too, those of new clients at once, and reads what clients
// send only when the predecessor no longer does: so a client has one socket, and with it one endpoint, all the time.
type relay struct {
	s    *Server
	name string // of the port's socket
	conn net.PacketConn
	at   netip.AddrPort

	closing chan struct{} // closed when nothing more is to be read
	done    chan struct{} // closed when nothing more is passed on

	mu       sync.Mutex
	closed   bool
	sessions map[netip.AddrPort]*session // by client
	work     sync.WaitGroup              // of the sessions
}

type session struct {
	net.Conn
	forget func()       // takes it out of what a successor gets
	used   atomic.Int64 // when there was a datagram, in nanoseconds since 1970
}

func (c *session) touch() { c.used.Store(time.Now().UnixNano()) }

// newRelay takes over the sessions of a predecessor. run must follow.
func newRelay(s *Server, name string, conn net.PacketConn, at netip.AddrPort) *relay {
	r := &relay{s: s, name: name, conn: conn, at: at, closing: make(chan struct{}), done: make(chan struct{}), sessions: map[netip.AddrPort]*session{}}
	s.cfg.Sockets.Inherit(name+ofClient, r.adopt)
	return r
}

// past is a deadline that ends a Read that waits, and lets what was read be passed on.
var past = time.Unix(1, 0)

// Close ends the port and all sessions. What was read is passed on before.
func (r *relay) Close() error {
	close(r.closing)
	_ = r.conn.SetReadDeadline(past)
	<-r.done
	return r.conn.Close()
}

// run passes on what clients send until Close, and then ends all sessions.
func (r *relay) run() {
	defer close(r.done)
	defer r.endAll()
	select {
	case <-r.s.cfg.Sockets.Alone():
	case <-r.closing:
	}
	buf := make([]byte, mostDatagram)
	for {
		n, from, err := r.conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			if !r.pause(err) {
				return
			}
			continue
		}
		if err := r.send(from.(*net.UDPAddr).AddrPort(), buf[:n]); err != nil && !r.pause(err) {
			return
		}
	}
}

// pause is the Server's, which Close ends too.
func (r *relay) pause(err error) bool {
	select {
	case <-r.closing:
		return false
	default:
		return r.s.pause(r.at, err)
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
	return r.begin(client, conn), nil
}

// ofClient is in the names of sockets towards the node, between that of the port and the client's address.
const ofClient = "/of/"

// begin makes a session. The mutex is held.
func (r *relay) begin(client netip.AddrPort, conn net.Conn) *session {
	c := &session{Conn: conn, forget: r.s.cfg.Sockets.Offer(r.name+ofClient+client.String(), conn.(syscall.Conn))}
	c.touch()
	r.sessions[client] = c
	r.work.Go(func() { r.answers(client, c) })
	return c
}

// adopt goes on with a session of the predecessor, from its socket towards the node.
func (r *relay) adopt(name string, conn net.Conn) {
	client, err := netip.ParseAddrPort(name[len(r.name+ofClient):])
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.closed {
		conn.Close()
		return
	}
	if before := r.sessions[client]; before != nil {
		before.Close()
	}
	r.begin(client, conn)
}

// answers passes on what a client is answered, until nobody has said anything for some time.
func (r *relay) answers(client netip.AddrPort, c *session) {
	defer r.end(client, c)
	to := net.UDPAddrFromAddrPort(client)
	buf := make([]byte, mostDatagram)
	for {
		until := time.Unix(0, c.used.Load()).Add(r.s.cfg.Idle)
		_ = c.SetReadDeadline(until)
		if r.ending() { // after the deadline was set, which must not take the place of that of endAll
			return
		}
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

func (r *relay) ending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *relay) end(client netip.AddrPort, c *session) {
	c.forget()
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

// endAll ends all sessions once they have passed on what they have read.
func (r *relay) endAll() {
	r.mu.Lock()
	r.closed = true
	for _, c := range r.sessions {
		_ = c.SetReadDeadline(past)
	}
	r.mu.Unlock()
	r.work.Wait()
}
