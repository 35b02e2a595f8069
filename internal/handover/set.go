//go:build linux

// Package handover passes the sockets on which an instance serves from its process to the one that replaces it, so
// that no client finds a port closed.
//
// A process opens its sockets through a Set, each under a name:
//
//	l, err := set.Listener("api/127.0.0.1:6443", func() (net.Listener, error) { return net.Listen(...) })
//
// Where a predecessor had a socket of that name, it is taken over with whatever waits in it, else it is opened. The
// successor calls Take, the predecessor Serve; they talk over a unix socket, which carries the sockets themselves
// (SCM_RIGHTS, unix(7)). A name says all that decides what the socket is, such as node, protocol, address and number.
//
// It passes no connections and nothing that a process knows: connections are served to their end by whom they reached.
package handover

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// Set are the sockets of one process. A nil Set inherits nothing and hands nothing over. It is safe for concurrent use.
type Set struct {
	mu        sync.Mutex
	inherited map[string]*os.File // not yet asked for
	offered   map[string]syscall.Conn
	handed    bool
	conn      *net.UnixConn // to the predecessor, until Ready
}

// New makes a Set of a process that replaces none.
func New() *Set { return &Set{} }

// Listener is the inherited listener of that name, or else the one that open makes. It belongs to the caller; closing
// it takes it out of the Set. A second call with the same name replaces what the first offered.
func (s *Set) Listener(name string, open func() (net.Listener, error)) (net.Listener, error) {
	f := s.take(name)
	if f == nil {
		return offer(s, name, open)
	}
	defer f.Close()
	return offer(s, name, func() (net.Listener, error) {
		l, err := net.FileListener(f)
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(true)
		}
		return l, err
	})
}

// PacketConn is Listener for sockets of packets.
func (s *Set) PacketConn(name string, open func() (net.PacketConn, error)) (net.PacketConn, error) {
	f := s.take(name)
	if f == nil {
		return offer(s, name, open)
	}
	defer f.Close()
	return offer(s, name, func() (net.PacketConn, error) { return net.FilePacketConn(f) })
}

// Succeeding reports whether there is a predecessor, which serves until Ready.
func (s *Set) Succeeding() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Handed reports whether a successor has the sockets. Who stops then leaves alone what the successor needs as well,
// such as the addresses that it serves.
func (s *Set) Handed() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed
}

func (s *Set) take(name string) *os.File {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[name]
	delete(s.inherited, name)
	return f
}

// offer makes a socket part of what a successor gets, if it is one that can be passed.
func offer[T any](s *Set, name string, open func() (T, error)) (T, error) {
	sock, err := open()
	if err != nil || s == nil {
		return sock, err
	}
	c, ok := any(sock).(syscall.Conn)
	if !ok {
		return sock, fmt.Errorf("socket %s cannot be handed over: %T has no descriptor", name, sock)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offered == nil {
		s.offered = map[string]syscall.Conn{}
	}
	s.offered[name] = c
	return sock, nil
}
