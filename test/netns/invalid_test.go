//go:build linux

package netns_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minato/internal/netns/netnstest"
)

// segment is a TCP segment without data, with its checksum.
func segment(from, to netip.AddrPort, seq uint32, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], 1)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 1024)
	src, dst := from.Addr().As4(), to.Addr().As4()
	sum := uint32(unix.IPPROTO_TCP + len(b))
	for _, part := range [][]byte{src[:], dst[:], b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// A segment out of the connection's window is not translated: if it were passed on, the client would see one from an
// address that it does not know, and reset.
func TestSegmentsOutOfOrderDoNotReachTheClientUntranslated(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	server, client := w.pod(2), w.pod(9)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	seen, err := client.ListenPacket(t.Context(), "ip4:tcp", "10.244.1.9")
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	c, err := client.DialContext(t.Context(), "tcp", "10.96.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := server.ListenPacket(t.Context(), "ip4:tcp", "10.244.1.2")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	const ack, syn = 0x10, 0x02
	pod, port := netip.MustParseAddrPort("10.244.1.2:8080"), c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
	at := netip.AddrPortFrom(netip.MustParseAddr("10.244.1.9"), port)
	marker := netip.AddrPortFrom(at.Addr(), 9)
	for _, s := range [][]byte{segment(pod, at, 0x7fff0000, ack), segment(pod, at, 0xffff0000, ack), segment(pod, marker, 1, syn)} {
		if _, err := raw.WriteTo(s, &net.IPAddr{IP: net.IPv4(10, 244, 1, 9)}); err != nil {
			t.Fatal(err)
		}
	}
	_ = seen.SetReadDeadline(time.Now().Add(netnstest.Wait))
	for buf := make([]byte, 1500); ; {
		n, from, err := seen.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n < 20 || from.String() != "10.244.1.2" {
			continue
		}
		switch binary.BigEndian.Uint16(buf[2:]) {
		case port:
			t.Error("the client was sent a segment from the pod's own address")
		case 9: // what was sent after them came through
			return
		}
	}
}
