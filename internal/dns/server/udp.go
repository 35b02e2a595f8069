package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// serveUDP reads, answers and writes on one socket until it is closed.
func (s *Server) serveUDP(c *net.UDPConn) error {
	m, err := newMmsg(c, maxUDP+512)
	if err != nil {
		return fmt.Errorf("serve UDP socket %s: %w", c.LocalAddr(), err)
	}
	from := &datagram{conn: c}
	r := responder{s: s, from: from, count: s.newCounters("udp", c.LocalAddr().(*net.UDPAddr).IP.To4() == nil)}
	var zones [batch]int
	for failed := 0; ; {
		n, err := m.read()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil { // an ICMP error of an earlier reply, say
			if failed++; failed > 100 {
				return fmt.Errorf("read from UDP socket %s: %w", c.LocalAddr(), err)
			}
			continue
		}
		failed = 0
		replies := 0
		r.began = time.Now()
		for i := range n {
			from.to = m.sender(i)
			b := m.replies[replies]
			if s.admits(from.to.Addr()) {
				b = r.respond(b, m.message(i), maxUDP)
			} else {
				b = r.refuse(b, m.message(i))
			}
			m.reply(replies, i, b) // b may have grown
			if len(b) > 0 {
				zones[replies] = r.zone
				replies++
			}
		}
		if err := m.write(replies); errors.Is(err, net.ErrClosed) {
			return nil
		}
		took := time.Since(r.began)
		for i := range replies {
			r.count.sent(zones[i], len(m.replies[i]), took)
		}
	}
}

// datagram sends a reply that comes later to the client of one message. It is safe for concurrent use.
type datagram struct {
	conn *net.UDPConn
	to   netip.AddrPort
}

func (d *datagram) addr() netip.Addr { return d.to.Addr() }

func (d *datagram) later() sender {
	later := *d
	return &later
}

func (d *datagram) send(reply []byte) {
	d.conn.WriteToUDPAddrPort(reply, d.to) //nolint:errcheck // the client asks again
}
