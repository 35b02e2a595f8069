package server

import (
	"net"
	"net/netip"
	"testing"

	mdns "github.com/miekg/dns"
)

// One round is a question sent, read, answered, written and received: what serveUDP does for each.
func TestNoAllocationFromTheSocketAndBack(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			listening, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Skip("no such loopback address:", err)
			}
			defer listening.Close()
			conn := listening.(*net.UDPConn)
			m, err := newMmsg(conn, maxUDP+512)
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(Config{Table: testTable(t, world()), Addrs: testZone.Addrs, Log: discard})
			if err != nil {
				t.Fatal(err)
			}
			from := &datagram{conn: conn}
			r := responder{s: s, from: from, count: s.newCounters("udp", false)}
			client, err := net.DialUDP("udp", nil, conn.LocalAddr().(*net.UDPAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			q, reply := pack(t, web().SetEdns0(1232, false)), make([]byte, maxUDP)
			round := func() {
				if _, err := client.Write(q); err != nil {
					t.Fatal(err)
				}
				if n, err := m.read(); n != 1 || err != nil {
					t.Fatalf("read %d messages: %v", n, err)
				}
				from.to = m.sender(0)
				m.reply(0, 0, r.respond(m.replies[0], m.message(0), maxUDP))
				if err := m.write(1); err != nil {
					t.Fatal(err)
				}
				if _, err := client.Read(reply); err != nil {
					t.Fatal(err)
				}
			}
			if n := testing.AllocsPerRun(100, round); n != 0 {
				t.Errorf("%v allocations for a question", n)
			}
			if from.to != netip.MustParseAddrPort(client.LocalAddr().String()) {
				t.Errorf("the sender is %s, was read as %s", client.LocalAddr(), from.to)
			}
			answer := new(mdns.Msg)
			if err := answer.Unpack(reply); err != nil || len(answer.Answer) != 1 {
				t.Errorf("got %v (%v)", answer, err)
			}
		})
	}
}

func TestBatchesAnswerEveryClient(t *testing.T) {
	server := start(t, Config{Table: testTable(t, world())})
	const clients = 3 * batch
	var conns []*mdns.Conn
	for i := range clients {
		c, err := mdns.Dial("udp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		q := web()
		q.Id = uint16(i)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range conns {
		if m, err := c.ReadMsg(); err != nil || m.Id != uint16(i) || len(m.Answer) != 1 {
			t.Errorf("client %d got %v (%v)", i, m, err)
		}
	}
}
