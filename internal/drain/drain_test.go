package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// start serves hello; ended has what Serve returned.
func start(t *testing.T) (d *Server, addr string, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d = New(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })})
	end := make(chan error, 1)
	go func() { end <- d.Serve(l) }()
	t.Cleanup(func() { d.Close() })
	return d, l.Addr().String(), end
}

func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a request on the connection and returns the answer.
func ask(c net.Conn) (*http.Response, error) {
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return r, errors.Join(err, r.Body.Close())
}

// accepted waits until the server has as many connections without a request.
func accepted(t *testing.T, d *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		have := 0
		d.silent.Range(func(any, any) bool { have++; return true })
		if have == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, want %d", have, n)
		}
	}
}

func shutdown(t *testing.T, d *Server, linger time.Duration) <-chan error {
	end := make(chan error, 1)
	go func() { end <- d.Shutdown(t.Context(), linger) }()
	for !d.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	return end
}

func TestWhoConnectedBeforeTheEndIsAnswered(t *testing.T) {
	d, addr, ended := start(t)
	c := connect(t, addr)
	accepted(t, d, 1)
	end := shutdown(t, d, 0)
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("it still listens")
	}
	r, err := ask(c)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Close {
		t.Error("the client is not told that the connection ends")
	}
	if err := <-end; err != nil {
		t.Error(err)
	}
}

func TestLingeringTellsClientsThatKeepTheirConnection(t *testing.T) {
	d, addr, _ := start(t)
	c := connect(t, addr)
	if r, err := ask(c); err != nil || r.Close {
		t.Fatal(r, err)
	}
	end := shutdown(t, d, time.Minute)
	if r, err := ask(c); err != nil || !r.Close {
		t.Error(r, err)
	}
	select {
	case err := <-end:
		t.Error("it does not linger:", err)
	default:
	}
}

func TestASilentClientDoesNotHoldUpTheEndForEver(t *testing.T) {
	d, addr, _ := start(t)
	connect(t, addr)
	accepted(t, d, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := d.Shutdown(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestServeAfterShutdownClosesTheListener(t *testing.T) {
	d, _, _ := start(t)
	if err := d.Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the listener is open")
	}
}

func TestUntilServesAndEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Until(ctx, &http.Server{Handler: http.NotFoundHandler()}, l, time.Minute)
	}()
	if r, err := ask(connect(t, l.Addr().String())); err != nil || r.StatusCode != http.StatusNotFound {
		t.Error(r, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestUntilSaysWhyItCouldNotGoOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Until(t.Context(), &http.Server{Handler: http.NotFoundHandler()}, l, 0); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
