package localhost_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"minato/internal/dataplane/localhost"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
)

// server answers datagrams with the address from which they came.
func (w *world) server(at string) {
	w.t.Helper()
	c, err := w.ns.ListenPacket(w.t.Context(), "udp", at)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s %d %s", from, n, buf[:min(n, 100)]), from)
		}
	}()
	w.t.Cleanup(func() { c.Close(); <-done })
}

// client is a socket that asks at an address.
type client struct {
	net.Conn
	t *testing.T
}

func (w *world) client(at string) client {
	w.t.Helper()
	c, err := w.ns.DialContext(w.t.Context(), "udp", at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return client{c, w.t}
}

// ask returns from where the server was asked, and fails if the answer is that to another question.
func (c client) ask(question string) (seenAs netip.AddrPort) {
	c.t.Helper()
	if _, err := c.Write([]byte(question)); err != nil {
		c.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(netnstest.Wait))
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		c.t.Fatalf("%s: %v", question, err)
	}
	var from, got string
	var size int
	if _, err := fmt.Sscan(string(buf[:n]), &from, &size, &got); err != nil || size != len(question) || got != question[:min(len(question), 100)] {
		c.t.Errorf("asked %q, answered %q", question, buf[:n])
	}
	return netip.MustParseAddrPort(from)
}

func TestDatagramsGoToTheNodesOwnAddressOfTheFamily(t *testing.T) {
	w := newWorld(t)
	w.server(addr4 + ":30080")
	w.server("[" + addr6 + "]:30080")
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	for _, at := range []string{here4, here6} {
		w.client(at).ask("short")
		big := make([]byte, 60000)
		for i := range big {
			big[i] = 'x'
		}
		w.client(at).ask(string(big))
	}
	w.must(func(e *model.Edit) { e.DeleteService(model.ServiceName{Namespace: "default", Name: "dns"}) })
	c := w.client(here4)
	_, _ = c.Write([]byte("gone"))
	_ = c.SetReadDeadline(time.Now().Add(netnstest.Wait))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the Service went: got %v, want connection refused", err)
	}
}

// Each client has its answers, and is one client for connection tracking as long as it speaks.
func TestClientsOfUDPAreToldApart(t *testing.T) {
	w := newWorld(t)
	w.server(addr4 + ":30080")
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	a, b := w.client(here4), w.client(here4)
	first := map[string]netip.AddrPort{"a": a.ask("a"), "b": b.ask("b")}
	if first["a"] == first["b"] {
		t.Errorf("two clients are one for the node: %s", first["a"])
	}
	for range 10 {
		for name, c := range map[string]client{"a": a, "b": b} {
			if seen := c.ask(name); seen != first[name] {
				t.Errorf("%s is %s after %s", name, seen, first[name])
			}
		}
	}
}

func TestAClientOfUDPThatIsQuietIsForgotten(t *testing.T) {
	w := newWorldOf(t, localhost.Config{Idle: time.Second})
	w.server(addr4 + ":30080")
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	quiet, busy := w.client(here4), w.client(here4)
	first, always := quiet.ask("first"), busy.ask("always")
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if seen := busy.ask("always"); seen != always {
			t.Fatalf("a client that speaks is %s after %s", seen, always)
		}
	}
	if again := quiet.ask("again"); again == first {
		t.Errorf("a client that was quiet is %s still", first)
	}
}

// Of more clients than there is room for, each is answered, and those that were quiet longest are forgotten.
func TestClientsOfUDPAreBounded(t *testing.T) {
	const room = 4
	w := newWorldOf(t, localhost.Config{Sessions: room})
	w.server(addr4 + ":30080")
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	var all []client
	seen := map[int]netip.AddrPort{}
	for i := range 3 * room {
		all = append(all, w.client(here4))
		seen[i] = all[i].ask(fmt.Sprint(i))
	}
	for i := 2 * room; i < 3*room; i++ {
		if now := all[i].ask("again"); now != seen[i] {
			t.Errorf("client %d of the newest is %s after %s", i, now, seen[i])
		}
	}
	if now := all[0].ask("again"); now == seen[0] {
		t.Errorf("the first client is %s still", now)
	}
}

// An endpoint that is not there yet costs the datagrams to it, and no later ones.
func TestWhatIsRefusedDoesNotEndThePort(t *testing.T) {
	w := newWorld(t)
	w.must(func(e *model.Edit) { e.SetService(service("dns", model.UDP)) })
	c := w.client(here4)
	for range 10 {
		if _, err := c.Write([]byte("nobody")); err != nil {
			t.Fatal(err)
		}
	}
	w.server(addr4 + ":30080")
	_ = c.SetReadDeadline(time.Time{})
	buf := make([]byte, 100)
	for deadline := time.Now().Add(netnstest.Wait); ; {
		if _, err := c.Write([]byte("somebody")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(buf); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no answer")
		}
	}
}
