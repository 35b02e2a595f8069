// Package drain ends HTTP servers without losing a request. http.Server.Shutdown alone drops every request that it has
// not read when it begins, and so those of clients who have just connected: they see their connection closed.
//
//	s := drain.New(&http.Server{Handler: h})
//	go s.Serve(l)
//	...
//	err := s.Shutdown(ctx, 0)
//
// It does not wait for connections that were hijacked, such as WebSockets; http.Server no longer knows them.
package drain

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// newConn is how long a client that has connected may take to ask, as in http.Server.Shutdown.
const newConn = 5 * time.Second

// Server is an http.Server that is served and ended through it. It is safe for concurrent use.
type Server struct {
	http     *http.Server
	silent   sync.Map // of net.Conn: those that have not asked yet
	draining atomic.Bool
	serving  sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
}

// New takes over an http.Server that does not serve yet, with its Handler; its ConnState must not be set.
func New(s *http.Server) *Server {
	d := &Server{http: s}
	next := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.draining.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close") // in HTTP/2, GOAWAY
		}
		next.ServeHTTP(w, r)
	})
	s.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			d.silent.Store(c, nil)
		case http.StateActive, http.StateClosed, http.StateHijacked:
			d.silent.Delete(c)
		}
	}
	return d
}

// Serve accepts connections until Shutdown or Close. It returns http.ErrServerClosed, or the reason why it does not go
// on.
func (d *Server) Serve(l net.Listener) error { return d.serve(l, d.http.Serve) }

// ServeTLS is Serve with the certificates of the http.Server's TLSConfig.
func (d *Server) ServeTLS(l net.Listener) error {
	return d.serve(l, func(l net.Listener) error { return d.http.ServeTLS(l, "", "") })
}

func (d *Server) serve(l net.Listener, serve func(net.Listener) error) error {
	d.mu.Lock()
	if d.draining.Load() {
		d.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	d.serving.Add(1)
	d.listeners = append(d.listeners, l)
	d.mu.Unlock()
	defer d.serving.Done()
	err := serve(l)
	if d.draining.Load() && errors.Is(err, net.ErrClosed) {
		err = http.ErrServerClosed
	}
	return err
}

// Shutdown stops accepting, and returns when every request of a connection that was accepted is answered, or with an
// error when ctx ends; then Close. For the time of linger, clients that keep their connections are told with an answer
// that this one ends, before those without a request are closed.
func (d *Server) Shutdown(ctx context.Context, linger time.Duration) error {
	d.mu.Lock()
	d.draining.Store(true)
	for _, l := range d.listeners {
		l.Close()
	}
	d.mu.Unlock()
	d.serving.Wait() // whoever was accepted is known from here on
	d.wait(ctx, linger)
	return d.http.Shutdown(ctx)
}

// wait returns after linger, and not before whoever connected has asked or had time to.
func (d *Server) wait(ctx context.Context, linger time.Duration) {
	const step = time.Millisecond
	begin := time.Now()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		if t := time.Since(begin); t >= linger && (d.asked() || t >= newConn) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// asked reports whether every connection has had a request.
func (d *Server) asked() bool {
	none := true
	d.silent.Range(func(any, any) bool { none = false; return false })
	return none
}

// Close ends all connections at once.
func (d *Server) Close() error { return d.http.Close() }

// Until serves until ctx ends, with TLS if the server has a TLSConfig, and then gives what is under way the time of
// grace. It returns nil then, or else the reason why it could not go on.
func Until(ctx context.Context, s *http.Server, l net.Listener, grace time.Duration) error {
	d := New(s)
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err := d.Shutdown(c, 0)
		if errors.Is(err, context.DeadlineExceeded) {
			err = d.Close()
		}
		ended <- err
	})
	serve := d.Serve
	if s.TLSConfig != nil {
		serve = d.ServeTLS
	}
	err := serve(l)
	if !stop() {
		return <-ended
	}
	return err
}
