package server

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const batch = 32 // messages for each system call; more gains nothing

// batchConn is the common part of ipv4.PacketConn and ipv6.PacketConn.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// serveUDP reads, answers and writes on one socket until it is closed.
func (s *Server) serveUDP(c *net.UDPConn) error {
	var pc batchConn = ipv4.NewPacketConn(c)
	is6 := c.LocalAddr().(*net.UDPAddr).IP.To4() == nil
	if is6 {
		pc = ipv6.NewPacketConn(c)
	}
	in, out := messages(), messages()
	from := &datagram{conn: c}
	r := responder{s: s, from: from, count: s.newCounters("udp", is6)}
	for failed := 0; ; {
		n, err := pc.ReadBatch(in, 0)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if failed++; failed > 100 {
				return fmt.Errorf("read from UDP socket %s: %w", c.LocalAddr(), err)
			}
			continue
		}
		failed = 0
		replies := out[:0]
		for i := range in[:n] {
			m := &in[i]
			from.to = m.Addr
			replies = replies[:len(replies)+1]
			o := &replies[len(replies)-1]
			o.Buffers[0] = r.respond(o.Buffers[0], m.Buffers[0][:m.N], maxUDP)
			o.Addr = m.Addr
			if len(o.Buffers[0]) == 0 {
				replies = replies[:len(replies)-1]
			}
		}
		for len(replies) > 0 {
			n, err := pc.WriteBatch(replies, 0)
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil { // the first one cannot be sent (its sender is unreachable, say): the others can
				n = 1
			}
			replies = replies[n:]
		}
	}
}

func messages() []ipv4.Message {
	ms := make([]ipv4.Message, batch)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, maxUDP+512)}
	}
	return ms
}

// datagram sends a reply that comes later to the client of one message. It is safe for concurrent use.
type datagram struct {
	conn *net.UDPConn
	to   net.Addr
}

func (d *datagram) later() sender {
	later := *d
	return &later
}

func (d *datagram) send(reply []byte) {
	d.conn.WriteTo(reply, d.to) //nolint:errcheck // the client asks again
}
