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
// Offer and Inherit are for sockets that come and go with clients. What is opened while a successor starts is passed on too.
//
// It passes no connections of TCP and nothing that a process knows: these are served to their end by whom they reached.
package handover

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Set are the sockets of one process. A nil Set inherits nothing and hands nothing over. It is safe for concurrent use.
type Set struct {
	conn  *net.UnixConn // to the predecessor, if there is one
	alone chan struct{} // closed when the predecessor has said its last word, and before where there is none

	mu        sync.Mutex
	inherited map[string]*os.File               // not yet asked for
	adopters  map[string]func(string, net.Conn) // by the beginning of names
	offered   map[string]syscall.Conn
	successor *net.UnixConn // that is given everything
	handed    bool
}

// New makes a Set of a process that replaces none.
func New() *Set { return &Set{alone: nobody()} }

func nobody() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

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

// Offer makes a socket that was opened otherwise part of what a successor gets, until forget is called.
func (s *Set) Offer(name string, c syscall.Conn) (forget func()) {
	if s == nil {
		return func() {}
	}
	s.mu.Lock()
	if s.offered == nil {
		s.offered = map[string]syscall.Conn{}
	}
	s.offered[name] = c
	successor := s.successor
	s.mu.Unlock()
	if successor != nil {
		_ = send(successor, name, c) // where it fails, there is no successor any more
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.offered[name] == c {
			delete(s.offered, name)
		}
	}
}

// Inherit calls adopt with every inherited connection whose name begins with prefix, and with those that the predecessor
// opens until Ready returns; one of the same name takes the place of an earlier one. They belong to adopt.
func (s *Set) Inherit(prefix string, adopt func(name string, c net.Conn)) {
	if s == nil || s.conn == nil {
		return
	}
	s.mu.Lock()
	if s.inherited == nil { // left
		s.mu.Unlock()
		return
	}
	s.adopters[prefix] = adopt
	found := map[string]*os.File{}
	for name, f := range s.inherited {
		if strings.HasPrefix(name, prefix) {
			found[name] = f
			delete(s.inherited, name)
		}
	}
	s.mu.Unlock()
	for name, f := range found {
		give(adopt, name, f)
	}
}

func give(adopt func(string, net.Conn), name string, f *os.File) {
	defer f.Close()
	if c, err := net.FileConn(f); err == nil {
		adopt(name, c)
	}
}

// receive takes a socket that the predecessor has passed.
func (s *Set) receive(name string, f *os.File) {
	s.mu.Lock()
	for prefix, adopt := range s.adopters {
		if strings.HasPrefix(name, prefix) {
			s.mu.Unlock()
			give(adopt, name, f)
			return
		}
	}
	defer s.mu.Unlock()
	if before := s.inherited[name]; before != nil {
		before.Close()
	}
	s.inherited[name] = f
}

// Alone is closed when no predecessor serves beside this process, or is about to end. Who may not be two waits for it.
func (s *Set) Alone() <-chan struct{} {
	if s == nil {
		return nobody()
	}
	return s.alone
}

// Succeeding reports whether there is a predecessor, which serves until Ready.
func (s *Set) Succeeding() bool {
	return s != nil && s.conn != nil
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

// offer opens a socket and makes it part of what a successor gets, if it is one that can be passed.
func offer[T any](s *Set, name string, open func() (T, error)) (T, error) {
	sock, err := open()
	if err != nil || s == nil {
		return sock, err
	}
	c, ok := any(sock).(syscall.Conn)
	if !ok {
		return sock, fmt.Errorf("socket %s cannot be handed over: %T has no descriptor", name, sock)
	}
	s.Offer(name, c)
	return sock, nil
}
