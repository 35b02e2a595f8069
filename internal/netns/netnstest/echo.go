//go:build linux

package netnstest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"minato/internal/netns"
)

// Wait is how long Ask waits for an answer.
const Wait = 2 * time.Second

// Server answers every connection or datagram with its name and the peer's address, as in "name 10.0.0.1:4711".
type Server struct {
	Name string
	Addr netip.AddrPort
}

// ServeTCP starts a server in a namespace until the test ends. Port 0 chooses one.
func ServeTCP(t testing.TB, ns netns.NS, name, address string) Server {
	t.Helper()
	l, err := ns.Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(Wait))
				fmt.Fprintf(c, "%s %s", name, c.RemoteAddr())
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return Server{name, netip.MustParseAddrPort(l.Addr().String())}
}

// ServeUDP is ServeTCP for datagrams.
func ServeUDP(t testing.TB, ns netns.NS, name, address string) Server {
	t.Helper()
	c, err := ns.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 2048)
		for {
			_, peer, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(fmt.Appendf(nil, "%s %s", name, peer), peer)
		}
	})
	t.Cleanup(func() { c.Close(); reader.Wait() })
	return Server{name, netip.MustParseAddrPort(c.LocalAddr().String())}
}

// Answer is what a Server said.
type Answer struct {
	Name string     // of the server that answered
	Peer netip.Addr // of the client, as the server saw it
}

// Ask connects from a namespace to a server at address ("tcp" or "udp") and returns its answer. A refusal or a
// timeout after Wait is returned as the error of the connection.
func Ask(ns netns.NS, network, address string) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	c, err := ns.DialContext(ctx, network, address)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(Wait))
	if network == "udp" {
		if _, err := c.Write([]byte("who?")); err != nil {
			return Answer{}, err
		}
	}
	return read(c)
}

func read(c net.Conn) (Answer, error) {
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil && (err != io.EOF || n == 0) {
		return Answer{}, err
	}
	var a Answer
	var peer string
	if _, err := fmt.Sscan(string(buf[:n]), &a.Name, &peer); err != nil {
		return Answer{}, fmt.Errorf("answer %q: %w", buf[:n], err)
	}
	at, err := netip.ParseAddrPort(peer)
	a.Peer = at.Addr()
	return a, err
}

// MustAsk is Ask for a test that ends if there is no answer.
func MustAsk(t testing.TB, ns netns.NS, network, address string) Answer {
	t.Helper()
	a, err := Ask(ns, network, address)
	if err != nil {
		t.Fatalf("from %s: no answer of %s %s: %v", ns, network, address, err)
	}
	return a
}
