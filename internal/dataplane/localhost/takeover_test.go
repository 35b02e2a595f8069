package localhost_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"minato/internal/dataplane/localhost"
	"minato/internal/handover"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
)

// takeover puts another server in the place of a world's, as two processes do, with what happens in between.
func takeover(t *testing.T, w *world, old *handover.Set, meanwhile func()) (next *handover.Set) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ended := make(chan struct{})
	serving, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); <-ended })
	stop, closed := w.stop, w.s.Closed()
	go func() {
		defer close(ended)
		if _, err := old.Serve(serving, path, func() {}, func() { stop(); <-closed }); err != nil {
			t.Error(err)
		}
	}()
	deadline := time.Now().Add(netnstest.Wait)
	next, err := handover.Take(t.Context(), path)
	for ; err != nil && time.Now().Before(deadline); next, err = handover.Take(t.Context(), path) {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := localhost.New(localhost.Config{Netns: w.ns, Sockets: next, Log: slog.New(slog.DiscardHandler)})
	w.run(s)
	if err := s.Publish(t.Context(), w.snap, nothing); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	if err := next.Ready(); err != nil {
		t.Fatal(err)
	}
	return next
}

// Before, while and after another process takes over, a client is one and the same for the node.
func TestClientsOfUDPStayWhatTheyAreInATakeover(t *testing.T) {
	sockets := handover.New()
	w := newWorldOf(t, localhost.Config{Sockets: sockets})
	w.server(addr4 + ":30080")
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	known := w.client(here4)
	first := known.ask("first")
	var begun client
	for range 3 {
		sockets = takeover(t, w, sockets, func() {
			if now := known.ask("meanwhile"); now != first {
				t.Errorf("meanwhile the client is %s after %s", now, first)
			}
			begun = w.client(here4)
			begun.ask("new")
		})
		if now := known.ask("after"); now != first {
			t.Errorf("then the client is %s after %s", now, first)
		}
		was := begun.ask("then")
		for range 100 {
			if now := begun.ask("again"); now != was {
				t.Fatalf("who came meanwhile is %s after %s", now, was)
			}
		}
	}
}

// What the endpoint says after the takeover, to a question from before, reaches the client.
func TestAnAnswerThatTakesLongerThanATakeoverIsNotLost(t *testing.T) {
	sockets := handover.New()
	w := newWorldOf(t, localhost.Config{Sockets: sockets})
	endpoint, err := w.ns.ListenPacket(t.Context(), "udp", addr4+":30080")
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.Close()
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	ask := func() (client, net.Addr) {
		c, buf := w.client(here4), make([]byte, 10)
		_, _ = c.Write([]byte("question"))
		_ = endpoint.SetReadDeadline(time.Now().Add(netnstest.Wait))
		_, from, err := endpoint.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return c, from
	}
	asked := map[client]net.Addr{}
	c, from := ask()
	asked[c] = from
	takeover(t, w, sockets, func() {
		c, from := ask()
		asked[c] = from
	})
	for c, from := range asked {
		_, _ = endpoint.WriteTo([]byte("answer"), from)
		_ = c.SetReadDeadline(time.Now().Add(netnstest.Wait))
		buf := make([]byte, 10)
		if n, err := c.Read(buf); string(buf[:n]) != "answer" {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}
}

func TestATakeoverCutsNoConnectionThatEnds(t *testing.T) {
	sockets := handover.New()
	w := newWorldOf(t, localhost.Config{Sockets: sockets})
	l, err := w.ns.Listen(t.Context(), "tcp", addr4+":30080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.must(func(e *model.Edit) { e.SetService(service("web", model.TCP)) })
	c, err := w.ns.DialContext(t.Context(), "tcp", here4)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	endpoint, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	takeover(t, w, sockets, func() {})
	_, _ = io.WriteString(endpoint, "answer")
	endpoint.Close()
	_ = c.SetReadDeadline(time.Now().Add(netnstest.Wait))
	if text, err := io.ReadAll(c); string(text) != "answer" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
}
