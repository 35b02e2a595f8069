package apiserver

import (
	"net"
	"sync"
)

// listeners serves several listeners as one, because upstream's server takes one.
type listeners struct {
	all      []net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
	accept   sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

func join(all []net.Listener) *listeners {
	l := &listeners{all: all, accepted: make(chan accepted), closed: make(chan struct{})}
	for _, one := range all {
		l.accept.Go(func() { l.acceptFrom(one) })
	}
	return l
}

func (l *listeners) acceptFrom(one net.Listener) {
	for {
		conn, err := one.Accept()
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.closed:
			if conn != nil {
				conn.Close()
			}
			return
		}
	}
}

// Accept returns the next connection of any of the listeners.
func (l *listeners) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close closes all listeners and waits until none accepts any more.
func (l *listeners) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		for _, one := range l.all {
			if e := one.Close(); err == nil {
				err = e
			}
		}
		l.accept.Wait()
	})
	return err
}

// Addr is the first listener's.
func (l *listeners) Addr() net.Addr { return l.all[0].Addr() }
