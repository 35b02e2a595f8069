//go:build linux

package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// predecessor serves a Set in the background; the channel has the end of Serve.
func predecessor(t *testing.T, s *Set, path string, release func()) <-chan bool {
	t.Helper()
	ended := make(chan bool, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		handed, err := s.Serve(ctx, path, release, func() {})
		if err != nil {
			t.Log(err)
		}
		ended <- handed
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return ended
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody serves")
		}
	}
}

func tcp(t *testing.T, s *Set, name string) net.Listener {
	t.Helper()
	l, err := s.Listener(name, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func notOpened(t *testing.T) func() (net.Listener, error) {
	return func() (net.Listener, error) { t.Error("opened anew"); return nil, errors.New("opened anew") }
}

func TestAConnectionThatWaitsIsServedByTheSuccessor(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	l := tcp(t, old, "a")
	ended := predecessor(t, old, path, func() { l.Close() })
	client, err := net.Dial("tcp", l.Addr().String()) // nobody has accepted it
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := next.Listener("a", notOpened(t))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if !old.Handed() || next.Handed() {
		t.Errorf("handed over: %t by the predecessor, %t by the successor", old.Handed(), next.Handed())
	}
	conn, err := got.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte("hello"))
	conn.Close()
	if text, err := io.ReadAll(client); string(text) != "hello" {
		t.Errorf("the client reads %q, %v", text, err)
	}
	select {
	case <-ended:
		t.Error("the predecessor ends before the successor is ready")
	default:
	}
	if err := next.Ready(); err != nil {
		t.Error(err)
	}
	if !<-ended {
		t.Error("the predecessor does not know that it was replaced")
	}
}

func TestPacketsThatWaitAreReadByTheSuccessor(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	pc, err := old.PacketConn("a", func() (net.PacketConn, error) { return net.ListenPacket("udp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	predecessor(t, old, path, func() { pc.Close() })
	client, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("one"))
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Ready()
	client.Write([]byte("two")) // while nobody reads
	got, err := next.PacketConn("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	for _, want := range []string{"one", "two"} {
		buf := make([]byte, 16)
		n, _, err := got.ReadFrom(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("read %q, %v, want %q", buf[:n], err, want)
		}
	}
}

func TestWhatIsNotAskedForIsClosed(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	l := tcp(t, old, "a")
	predecessor(t, old, path, func() { l.Close() })
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Ready(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestAClosedSocketIsNotHandedOver(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	tcp(t, old, "a").Close()
	predecessor(t, old, path, func() {})
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Ready()
	opened := false
	l, err := next.Listener("a", func() (net.Listener, error) { opened = true; return net.Listen("tcp", "127.0.0.1:0") })
	if err != nil || !opened {
		t.Fatalf("opened: %t, %v", opened, err)
	}
	l.Close()
}

func TestThePathOfAUnixSocketStaysUntilItsLastOwnerCloses(t *testing.T) {
	dir := t.TempDir()
	path, at, old := filepath.Join(dir, "s"), filepath.Join(dir, "u"), New()
	l, err := old.Listener("u", func() (net.Listener, error) { return net.Listen("unix", at) })
	if err != nil {
		t.Fatal(err)
	}
	predecessor(t, old, path, func() { l.Close() })
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Ready()
	got, err := next.Listener("u", notOpened(t))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("unix", at); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	got.Close()
	if _, err := os.Stat(at); err == nil {
		t.Error("the path is left")
	}
}

// A successor may die at any moment; up to msgHave that must change nothing.
func TestASuccessorThatGoesAwayBeforeItHasEverythingChangesNothing(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	l := tcp(t, old, "a")
	predecessor(t, old, path, func() { l.Close() })
	for _, said := range []string{"", "nonsense", msgTake} {
		c, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(said))
		c.Close()
	}
	if old.Handed() {
		t.Error("handed over")
	}
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Ready()
	got, err := next.Listener("a", notOpened(t))
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}

func TestASuccessorThatDiesLaterEndsThePredecessor(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	ended := predecessor(t, old, path, func() {})
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	if !<-ended {
		t.Error("the predecessor goes on without its lock")
	}
}

func TestHundredsOfSockets(t *testing.T) {
	path, old := filepath.Join(t.TempDir(), "s"), New()
	var names []string
	for i := range 600 { // one message carries at most 253 descriptors
		names = append(names, "s"+string(rune('0'+i)))
		tcp(t, old, names[i])
	}
	predecessor(t, old, path, func() {})
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Ready()
	for _, name := range names {
		l, err := next.Listener(name, notOpened(t))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestNobodyToTakeOverFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Take(t.Context(), path); !errors.Is(err, ErrNoPredecessor) {
		t.Error(err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a killed process leaves it
	if _, err := Take(t.Context(), path); !errors.Is(err, ErrNoPredecessor) {
		t.Error(err)
	}
}

func TestANilSetOpens(t *testing.T) {
	var s *Set
	l, err := s.Listener("a", func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if s.Handed() || s.Ready() != nil {
		t.Error("a nil Set has a predecessor or a successor")
	}
}

// from is a connection of UDP to a server, and where it comes from.
func from(t *testing.T, server net.PacketConn) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestTheSuccessorInheritsWhatClientsHaveAndWhatComesLater(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	path, old := filepath.Join(t.TempDir(), "s"), New()
	var mu sync.Mutex
	want := map[string]string{}
	open := func(name string) (forget func()) {
		mu.Lock()
		defer mu.Unlock()
		c := from(t, server)
		want[name] = c.LocalAddr().String()
		return old.Offer(name, c.(*net.UDPConn))
	}
	open("port/of/a")
	open("port/of/gone")()
	delete(want, "port/of/gone")
	ended := predecessor(t, old, path, func() { open("port/of/early") }) // it has let go of nothing yet
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan net.Conn, 9)
	names := make(chan string, 9)
	next.Inherit("port/of/", func(name string, c net.Conn) { names <- name; got <- c })
	next.Inherit("other/of/", func(name string, _ net.Conn) { t.Errorf("got %s", name) })
	open("port/of/late")
	mu.Lock()
	defer mu.Unlock()
	for range len(want) {
		name, c := <-names, <-got
		if at := c.LocalAddr().String(); at != want[name] {
			t.Errorf("%s is %s, want %s", name, at, want[name])
		}
		delete(want, name)
		c.Close()
	}
	select {
	case <-next.Alone():
		t.Error("the successor is alone before it is ready")
	default:
	}
	if err := next.Ready(); err != nil {
		t.Error(err)
	}
	<-next.Alone()
	<-ended
	if len(want) > 0 {
		t.Errorf("not inherited: %v", want)
	}
}

func TestWhoHasNoPredecessorOrHasLostItIsAlone(t *testing.T) {
	var none *Set
	<-none.Alone()
	<-New().Alone()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // a predecessor that dies when it has let go
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		for _, text := range []string{msgEnd, msgYours} {
			_ = say(c, text)
		}
		_ = expect(c, msgTake)
		_ = expect(c, msgHave)
		c.Close()
	}()
	next, err := Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	<-next.Alone()
	next.Close()
}
