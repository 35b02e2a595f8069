//go:build linux

package netns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// Kernels without SCTP sockets route, track and translate SCTP all the same. So the ends are raw sockets which exchange
// the first two chunks of an association (RFC 9260 section 3.3).
const (
	sctpInit    = 1
	sctpInitAck = 2
	sctpNetwork = "ip4:132"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunk is an SCTP packet with one chunk, of those that begin an association.
type chunk struct {
	src, dst     uint16
	verification uint32 // the tag that the receiver has chosen, 0 in INIT
	kind         byte
	tag          uint32 // the tag that the sender has chosen
}

func (c chunk) marshal() []byte {
	b := binary.BigEndian.AppendUint16(nil, c.src)
	b = binary.BigEndian.AppendUint16(b, c.dst)
	b = binary.BigEndian.AppendUint32(b, c.verification)
	b = append(b, 0, 0, 0, 0)       // checksum
	b = append(b, c.kind, 0, 0, 20) // chunk, flags, length
	b = binary.BigEndian.AppendUint32(b, c.tag)
	b = binary.BigEndian.AppendUint32(b, 1<<16) // receiver window
	b = append(b, 0, 1, 0, 1)                   // streams out and in
	b = binary.BigEndian.AppendUint32(b, c.tag)
	if c.kind == sctpInitAck {
		b[15] += 8
		b = append(b, 0, 7, 0, 8, 'm', 'n', 't', 'o') // state cookie
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli)) // RFC 9260 appendix A
	return b
}

func parseChunk(b []byte) (c chunk, err error) {
	if len(b) < 32 {
		return c, fmt.Errorf("%d bytes are no INIT", len(b))
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	zeroed := append(append(append([]byte(nil), b[:8]...), 0, 0, 0, 0), b[12:]...)
	if crc32.Checksum(zeroed, castagnoli) != sum {
		return c, errors.New("the checksum is wrong")
	}
	return chunk{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[4:]), b[12],
		binary.BigEndian.Uint32(b[16:])}, nil
}

// serveSCTP answers INIT to one port with INIT ACK. Its tag is the last octet of the server's address.
func serveSCTP(t *testing.T, ns netns.NS, addr string, port uint16) {
	t.Helper()
	c, err := ns.ListenPacket(context.Background(), sctpNetwork, addr)
	if err != nil {
		t.Fatal(err)
	}
	tag := uint32(netip.MustParseAddr(addr).As4()[3])
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, peer, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			got, err := parseChunk(buf[:n])
			if err != nil {
				t.Errorf("%s received from %s: %v", addr, peer, err)
			} else if got.kind == sctpInit && got.dst == port {
				c.WriteTo(chunk{src: got.dst, dst: got.src, verification: got.tag, kind: sctpInitAck, tag: tag}.marshal(), peer)
			}
		}
	})
	t.Cleanup(func() { c.Close(); reader.Wait() })
}

// associate sends INIT from a port and returns the last octet of the server that acknowledges it.
func associate(from netns.NS, port uint16, to string) (server uint32, err error) {
	at := netip.MustParseAddrPort(to)
	ctx, cancel := context.WithTimeout(context.Background(), netnstest.Wait)
	defer cancel()
	c, err := from.DialContext(ctx, sctpNetwork, at.Addr().String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(netnstest.Wait))
	const tag = 4711
	if _, err := c.Write(chunk{src: port, dst: at.Port(), kind: sctpInit, tag: tag}.marshal()); err != nil {
		return 0, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.(net.PacketConn).ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		got, err := parseChunk(buf[:n])
		if err != nil {
			return 0, err
		}
		if got.kind == sctpInitAck && got.src == at.Port() && got.dst == port && got.verification == tag {
			return got.tag, nil
		}
	}
}

// sctp makes the ports of a Service those of SCTP.
func sctp(s *model.Service) {
	s.Frontends = nil
	ip := s.ClusterIPs[0]
	s.Frontends = append(s.Frontends,
		model.Frontend{Addr: netip.AddrPortFrom(ip, 80), Protocol: model.SCTP, PortName: "sctp"},
		model.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30001"), Protocol: model.SCTP, Kind: model.NodePort, PortName: "sctp"})
	for i := range s.Slices[0].Backends {
		s.Slices[0].Backends[i].Protocol, s.Slices[0].Backends[i].PortName = model.SCTP, "sctp"
	}
}

func TestSCTP(t *testing.T) {
	w := newWorld(t)
	for i := 2; i <= 3; i++ {
		serveSCTP(t, w.pod(i), fmt.Sprintf("10.244.1.%d", i), 8080)
	}
	w.apply(w.service("web", 1, sctp, "10.244.1.2", "10.244.1.3"))
	for _, from := range []struct {
		name string
		ns   netns.NS
		to   string
	}{{"pod to ClusterIP", w.pod(9), "10.96.0.1:80"}, {"node to ClusterIP", w.node, "10.96.0.1:80"},
		{"outside to NodePort", w.outside, nodeAddr + ":30001"}} {
		t.Run(from.name, func(t *testing.T) {
			got := map[uint32]bool{}
			for port := uint16(40000); port < 40030; port++ {
				server, err := associate(from.ns, port, from.to)
				if err != nil {
					t.Fatal(err)
				}
				got[server] = true
			}
			if !got[2] || !got[3] || len(got) != 2 {
				t.Errorf("answered by %v, want both endpoints", got)
			}
		})
	}
	t.Run("an association moves when its endpoint is gone", func(t *testing.T) {
		server, err := associate(w.pod(9), 41000, "10.96.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		w.apply(w.service("web", 1, sctp, fmt.Sprintf("10.244.1.%d", 5-server)))
		if now, err := associate(w.pod(9), 41000, "10.96.0.1:80"); err != nil || now != 5-server {
			t.Errorf("answered by %d (%v), want %d", now, err, 5-server)
		}
	})
	t.Run("without endpoints", func(t *testing.T) {
		w.apply(w.service("web", 1, sctp))
		if _, err := associate(w.pod(9), 42000, "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want connection refused", err)
		}
	})
	t.Run("an association from before the first endpoint reaches it", func(t *testing.T) {
		w.apply(w.service("web", 1, sctp, "10.244.1.2"))
		if server, err := associate(w.pod(9), 42000, "10.96.0.1:80"); err != nil || server != 2 {
			t.Errorf("answered by %d (%v), want 2", server, err)
		}
	})
	t.Run("associations with live endpoints stay", func(t *testing.T) {
		both := []string{"10.244.1.2", "10.244.1.3"}
		clusterOnly := func(s *model.Service) { sctp(s); s.Frontends = s.Frontends[:1] }
		w.apply(w.service("web", 1, sctp, both...))
		servers := map[uint16]uint32{}
		for port := uint16(43000); port < 43016; port++ {
			server, err := associate(w.pod(9), port, "10.96.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			servers[port] = server
		}
		for _, c := range []struct {
			after string
			do    func()
		}{
			{"another Service's change", func() { w.apply(w.service("other", 2, clusterOnly, both[0])) }},
			{"growth", func() { w.apply(w.service("web", 1, sctp, append(both, "10.244.1.4")...)) }},
			{"the end of an endpoint that had none", func() { w.apply(w.service("web", 1, sctp, both...)) }},
			{"a restart", func() { w.dp.Close(); w.dp = w.open(); w.programmed() }},
		} {
			c.do()
			for port, before := range servers {
				if server, err := associate(w.pod(9), port, "10.96.0.1:80"); err != nil || server != before {
					t.Errorf("after %s port %d is answered by %d (%v), want %d", c.after, port, server, err, before)
				}
			}
		}
	})
}
