package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/model"
)

// echoUpgrade switches protocols and sends back what it gets, line by line.
func echoUpgrade(t *testing.T) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "k" {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, "echo "+line)
		}
	})
}

// upgrade opens a WebSocket-like connection through the server.
func upgrade(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	c.SetDeadline(time.Now().Add(wait))
	io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v %v", res, err)
	}
	return r
}

func TestWebSocket(t *testing.T) {
	w := start(t, nil)
	w.serve("x", echoUpgrade(t))
	for name, dial := range map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return net.Dial("tcp", w.plain) },
		"TLS":   func() (net.Conn, error) { return tls.Dial("tcp", w.secure, &tls.Config{InsecureSkipVerify: true}) },
	} {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		r := upgrade(t, c)
		for i := range 3 {
			fmt.Fprintf(c, "message %d\n", i)
			if line, err := r.ReadString('\n'); line != fmt.Sprintf("echo message %d\n", i) {
				t.Errorf("%s: %q %v", name, line, err)
			}
		}
		c.Close()
	}
	eventually(t, "both ends to be closed", func() bool { return w.active.Load() == 0 })
}

func TestAWebSocketOutlivesItsRoute(t *testing.T) {
	w := start(t, nil)
	i := w.serve("x", echoUpgrade(t))
	w.serve("y", saying(t, "y")) // so that it goes on listening
	c, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := upgrade(t, c)
	w.edit(func(e *model.Edit) { e.DeleteIngress(i.Name) })
	if got := w.get("http://x/"); !strings.HasPrefix(got, "404 ") {
		t.Errorf("a new request: %s", got)
	}
	io.WriteString(c, "still\n")
	if line, err := r.ReadString('\n'); line != "echo still\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestWebSocketsEndWithTheServer(t *testing.T) {
	w := start(t, func(c *Config) { c.Grace = 50 * time.Millisecond })
	w.serve("x", echoUpgrade(t))
	c, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := upgrade(t, c)
	w.stop()
	if _, err := r.ReadByte(); err == nil {
		t.Error("the connection is still there")
	}
}

// eachProtocol runs a test over HTTP/1.1 and over HTTP/2, both with TLS.
func eachProtocol(t *testing.T, f func(t *testing.T, http2 bool)) {
	t.Run("HTTP 1.1", func(t *testing.T) { f(t, false) })
	t.Run("HTTP 2", func(t *testing.T) { f(t, true) })
}

func TestResponsesAreStreamed(t *testing.T) {
	eachProtocol(t, func(t *testing.T, http2 bool) {
		w := start(t, nil)
		next := make(chan struct{})
		w.serve("x", backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "6")
			for range 3 {
				io.WriteString(w, "ab")
				w.(http.Flusher).Flush()
				<-next
			}
		}))
		res, err := w.client(http2, nil).Get("https://x/")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			buf := make([]byte, 2)
			if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "ab" {
				t.Fatalf("%q %v", buf, err)
			}
			next <- struct{}{}
		}
		res.Body.Close()
	})
}

func TestBothWaysAtOnce(t *testing.T) {
	eachProtocol(t, func(t *testing.T, http2 bool) {
		w := start(t, nil)
		w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			control.EnableFullDuplex()
			control.Flush()
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				fmt.Fprintf(w, "%s!\n", lines.Text())
				control.Flush()
			}
		}))
		body, send := io.Pipe()
		res, err := w.client(http2, nil).Post("https://x/", "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		if http2 != (res.ProtoMajor == 2) {
			t.Errorf("protocol %s", res.Proto)
		}
		lines := bufio.NewReader(res.Body)
		for i := range 3 {
			fmt.Fprintf(send, "line %d\n", i)
			if line, err := lines.ReadString('\n'); line != fmt.Sprintf("line %d!\n", i) {
				t.Fatalf("%q %v", line, err)
			}
		}
		send.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q %v", rest, err)
		}
		res.Body.Close()
	})
}

func TestAnAnswerBeforeTheEndOfTheBodyArrives(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "enough", http.StatusForbidden)
	}))
	c, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nfirst bytes")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusForbidden {
		t.Fatalf("%v %v", res, err)
	}
	eventually(t, "the request to end", func() bool { return w.active.Load() == 0 })
}

func TestTrailersAndEarlyHints(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	}))
	got := w.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\n") || !strings.Contains(got, "X-Sum: 42") {
		t.Errorf("got\n%s", got)
	}
}

func TestAClientThatGoesAwayEndsTheRequestAtTheBackend(t *testing.T) {
	eachProtocol(t, func(t *testing.T, http2 bool) {
		w := start(t, nil)
		arrived, ended := make(chan struct{}), make(chan struct{})
		w.serve("x", backend(t, func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-r.Context().Done()
			close(ended)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://x/", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if res, err := w.client(http2, nil).Do(req); err == nil {
				res.Body.Close()
			}
		}()
		<-arrived
		cancel()
		select {
		case <-ended:
		case <-time.After(wait):
			t.Error("the backend goes on")
		}
		<-done
		eventually(t, "the count of the request", func() bool { return w.statuses[0].Load() == 1 })
	})
}

func TestAClientThatAsksBeforeItSendsIsToldToGoOn(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	c, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	io.WriteString(c, "body")
	if rest, err := io.ReadAll(r); err != nil || !strings.HasSuffix(string(rest), "\r\n\r\nbody") {
		t.Errorf("%q %v", rest, err)
	}
}

func TestConnectionsOfClientsAreKept(t *testing.T) {
	w := start(t, nil)
	w.serve("x", backend(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	var dials atomic.Int32
	c := w.client(false, nil)
	tr := c.Transport.(*http.Transport)
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, addr)
	}
	for range 100 {
		if got := do(t, c, "POST", "http://x/", strings.NewReader("body")); got != "200 body" {
			t.Fatal(got)
		}
		if got := do(t, c, "POST", "http://x/", io.MultiReader(strings.NewReader("in chunks"))); got != "200 in chunks" {
			t.Fatal(got)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for 200 requests, one after the other", n)
	}
}
