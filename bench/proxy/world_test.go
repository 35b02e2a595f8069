//go:build linux

package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// world is a node with a client and a server behind it.
type world struct {
	node, client, server netns.NS
}

var (
	clientAddr = netip.MustParseAddr("10.128.0.9")
	serverAddr = netip.MustParseAddr("10.128.0.8")
)

const (
	serverPort     = 8080 // of the server that lets connections be made
	connectionPort = 8081 // of the one that connections are measured with
)

func newWorld(t *testing.T) *world {
	w := &world{netnstest.Namespace(t, "node"), netnstest.Namespace(t, "client"), netnstest.Namespace(t, "server")}
	run := func(ns netns.NS, argv ...string) { netnstest.Run(t, ns, argv...) }
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"} {
		run(w.node, "sysctl", "-qw", s)
	}
	run(w.node, "ip", "address", "add", nodeAddr+"/32", "dev", "lo")
	for _, p := range []struct {
		dev  string
		ns   netns.NS
		addr netip.Addr
	}{{"client", w.client, clientAddr}, {"server", w.server, serverAddr}} {
		netnstest.Link(t, w.node, p.dev, nodeAddr+"/32", p.ns, "eth0", p.addr.String()+"/32")
		run(p.ns, "ip", "route", "add", nodeAddr, "dev", "eth0")
		run(p.ns, "ip", "route", "add", "default", "via", nodeAddr)
		run(p.ns, "sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000")
		run(w.node, "ip", "route", "add", p.addr.String(), "dev", p.dev, "src", nodeAddr)
	}
	return w
}

// reached waits until a new connection to an address is answered, and says when. The wait has steps of a few
// milliseconds.
func (w *world) reached(ctx context.Context, to netip.AddrPort) (time.Time, error) {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		c, err := w.client.DialContext(try, "tcp", to.String())
		cancel()
		if err == nil {
			c.Close()
			return time.Now(), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Time{}, ctx.Err()
}

// listen answers nothing: it lets connections be made and ends them.
func (w *world) listen(t *testing.T) {
	l, err := w.server.Listen(t.Context(), "tcp", netip.AddrPortFrom(serverAddr, serverPort).String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.Close()
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// monitor listens to what is committed to the nf_tables of a namespace, also by iptables.
type monitor struct {
	socket int
	buf    []byte
}

func watchTables(t *testing.T, ns netns.NS) *monitor {
	m := &monitor{buf: make([]byte, 1<<20)}
	const groupNFTables = 7 // NFNLGRP_NFTABLES
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		m.socket = fd
		return errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupNFTables))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(m.socket) })
	return m
}

// committed waits for the end of the transaction that has the address in it, and says when it was. The commit itself
// is what the kernel tells last.
func (m *monitor) committed(addr netip.Addr, limit time.Duration) (time.Time, error) {
	const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	want, seen := addr.AsSlice(), false
	for deadline := time.Now().Add(limit); ; {
		left := unix.NsecToTimeval(max(1000, time.Until(deadline).Nanoseconds()))
		if err := unix.SetsockoptTimeval(m.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
			return time.Time{}, err
		}
		n, err := unix.Read(m.socket, m.buf)
		now := time.Now()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return time.Time{}, err
		}
		for b := m.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			length := min(int(binary.NativeEndian.Uint32(b)), len(b))
			seen = seen || bytes.Contains(b[unix.NLMSG_HDRLEN:length], want)
			if seen && binary.NativeEndian.Uint16(b[4:]) == newGeneration {
				return now, nil
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}
