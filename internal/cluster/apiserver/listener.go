package apiserver

import (
	"errors"
	"net"
	"sync"
	"time"
)

// listeners serves several listeners as one, because upstream's server takes one.
type listeners struct {
	all      []net.Listener
	accepted chan accepted
	ended    chan struct{} // closed when nothing is accepted any more and all that was is with the server
	abandon  chan struct{} // closed some time after Close, when nobody can be expected to ask for more
	once     sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

// delivery is how long a connection that was accepted waits for a server that stops.
const delivery = time.Second

func join(all []net.Listener) *listeners {
	l := &listeners{all: all, accepted: make(chan accepted), ended: make(chan struct{}), abandon: make(chan struct{})}
	var accept sync.WaitGroup
	for _, one := range all {
		accept.Go(func() { l.acceptFrom(one) })
	}
	go func() { // ends with the listeners
		accept.Wait()
		close(l.ended)
	}()
	return l
}

func (l *listeners) acceptFrom(one net.Listener) {
	for {
		conn, err := one.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case l.accepted <- accepted{conn, err}:
		case <-l.abandon:
			if conn != nil {
				conn.Close()
			}
			return
		}
	}
}

// Accept returns the next connection of any of the listeners. After Close it still returns those that had been accepted
// by then: their clients could not know.
func (l *listeners) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// Close closes all listeners. It does not wait: http.Server calls it with the lock that Accept's caller needs next.
func (l *listeners) Close() error {
	var err error
	l.once.Do(func() {
		for _, one := range l.all {
			if e := one.Close(); err == nil {
				err = e
			}
		}
		time.AfterFunc(delivery, func() { close(l.abandon) })
	})
	return err
}

// Addr is the first listener's.
func (l *listeners) Addr() net.Addr { return l.all[0].Addr() }
