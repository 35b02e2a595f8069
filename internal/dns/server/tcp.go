package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	tcpIdle      = 10 * time.Second // without a question; RFC 7766, 6.2.3 asks for seconds
	tcpWrite     = 5 * time.Second
	tcpConns     = 1024 // for each listener
	tcpPerClient = 64   // for each client address
	tcpMaxQuery  = 4096
)

// serveTCP accepts connections until the listener is closed, and returns when the last one has ended.
func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	var open clients
	count := s.newCounters("tcp", l.Addr().(*net.TCPAddr).IP.To4() == nil)
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.Warn("dns: accepting a connection failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // out of file descriptors, say
			}
			continue
		}
		client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !s.admits(client) || !open.enter(client) {
			c.Close()
			continue
		}
		wg.Go(func() {
			defer open.leave(client)
			s.serveConn(ctx, c, count)
		})
	}
}

// clients counts connections by client.
type clients struct {
	mu    sync.Mutex
	by    map[netip.Addr]int
	total int
}

func (c *clients) enter(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= tcpConns || c.by[a] >= tcpPerClient {
		return false
	}
	if c.by == nil {
		c.by = map[netip.Addr]int{}
	}
	c.by[a]++
	c.total++
	return true
}

func (c *clients) leave(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.by[a]--; c.by[a] == 0 {
		delete(c.by, a)
	}
}

// serveConn answers the questions of one connection in the order of their arrival, but for those that wait for an
// upstream: these are answered when it has (RFC 7766, 6.2.1.1).
func (s *Server) serveConn(ctx context.Context, c *net.TCPConn, count *counters) {
	stream := &stream{conn: c}
	defer stream.finish()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r := responder{s: s, from: stream, count: count}
	in := bufio.NewReaderSize(c, 2+tcpMaxQuery)
	var out []byte
	for {
		c.SetReadDeadline(time.Now().Add(tcpIdle))
		if ctx.Err() != nil { // it may have ended just before the deadline was set
			return
		}
		q, err := readFrame(in)
		if err != nil {
			return
		}
		r.began = time.Now()
		out = r.respond(out, q, maxTCP)
		if len(out) == 0 {
			continue
		}
		if stream.write(out) != nil {
			return
		}
		r.count.sent(r.zone, len(out), time.Since(r.began))
	}
}

// readFrame reads one message with its length in front. It is valid until the next read.
func readFrame(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head))
	if n > tcpMaxQuery {
		return nil, fmt.Errorf("a question of %d bytes: %w", n, io.ErrShortBuffer)
	}
	frame, err := in.Peek(2 + n)
	if err != nil {
		return nil, err
	}
	in.Discard(2 + n) //nolint:errcheck // just peeked at
	return frame[2:], nil
}

// stream writes the replies of one connection, some of them later and from other goroutines.
type stream struct {
	conn  *net.TCPConn
	mu    sync.Mutex
	frame []byte
	wg    sync.WaitGroup // replies that are still to come
}

func (s *stream) write(reply []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frame = append(binary.BigEndian.AppendUint16(s.frame[:0], uint16(len(reply))), reply...)
	s.conn.SetWriteDeadline(time.Now().Add(tcpWrite))
	_, err := s.conn.Write(s.frame)
	return err
}

func (s *stream) addr() netip.Addr {
	return s.conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// later promises one reply.
func (s *stream) later() sender {
	s.wg.Add(1)
	return s
}

// send does not wait for the client to read: others wait for the same answer.
func (s *stream) send(reply []byte) {
	go func() {
		defer s.wg.Done()
		if s.write(reply) != nil {
			s.conn.CloseRead() //nolint:errcheck // ends the reader, which closes
		}
	}()
}

// finish waits for the promised replies and closes.
func (s *stream) finish() {
	s.wg.Wait()
	s.conn.Close()
}
