package server

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// deliver has clients send questions, one for each reply, and writes the replies: replies[i] is for client of[i].
// It returns what each client got.
func deliver(t *testing.T, clients int, of []int, replies [][]byte) (got [][]string, messages int) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m, err := newMmsg(server.(*net.UDPConn), 64)
	if err != nil {
		t.Fatal(err)
	}
	conns, got := make([]net.Conn, clients), make([][]string, clients)
	for i := range conns {
		if conns[i], err = net.Dial("udp", server.LocalAddr().String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for _, c := range of {
		fmt.Fprint(conns[c], "?")
	}
	if n, err := m.read(); n != len(of) || err != nil {
		t.Fatalf("read %d of %d: %v", n, len(of), err)
	}
	for i, b := range replies {
		m.reply(i, i, b)
	}
	messages = len(m.pack(len(replies)))
	if err := m.write(len(replies)); err != nil {
		t.Fatal(err)
	}
	for _, c := range of {
		b := make([]byte, 2000)
		conns[c].SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conns[c].Read(b)
		if err != nil {
			t.Fatalf("client %d lacks a reply after %d: %v", c, len(got[c]), err)
		}
		got[c] = append(got[c], string(b[:n]))
	}
	return got, messages
}

// sent is what each client should get, in any order.
func sent(clients int, of []int, replies [][]byte) [][]string {
	want := make([][]string, clients)
	for i, c := range of {
		want[c] = append(want[c], string(replies[i]))
	}
	return want
}

func sorted(all [][]string) string {
	for _, one := range all {
		slices.Sort(one)
	}
	return fmt.Sprintf("%q", all)
}

func filled(n int, c byte) []byte { return slices.Repeat([]byte{c}, n) }

func TestRepliesToOneClientAreOneMessage(t *testing.T) {
	for _, c := range []struct {
		what     string
		of, size []int
		messages int
	}{
		{"one reply", []int{0}, []int{40}, 1},
		{"two clients", []int{0, 1}, []int{40, 40}, 2},
		{"equal", []int{0, 0, 0}, []int{40, 40, 40}, 1},
		{"the last one shorter", []int{0, 0, 0}, []int{40, 40, 30}, 1},
		{"the longer one second", []int{0, 0}, []int{40, 90}, 1},
		{"nothing fits behind a shorter one", []int{0, 0, 0}, []int{40, 30, 40}, 2},
		{"a longer one behind equal ones", []int{0, 0, 0}, []int{40, 40, 50}, 2},
		{"clients in turns", []int{0, 1, 0, 1}, []int{40, 40, 40, 30}, 2},
	} {
		t.Run(c.what, func(t *testing.T) {
			replies := make([][]byte, len(c.of))
			for i := range replies {
				replies[i] = filled(c.size[i], 'a'+byte(i))
			}
			got, messages := deliver(t, 2, c.of, replies)
			if messages != c.messages {
				t.Errorf("%d messages, want %d", messages, c.messages)
			}
			if g, w := sorted(got), sorted(sent(2, c.of, replies)); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
}

func TestEveryReplyArrivesOnceAndWhole(t *testing.T) {
	const clients = 4
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := 1 + r.IntN(batch)
		of, replies := make([]int, n), make([][]byte, n)
		for i := range n {
			of[i], replies[i] = r.IntN(clients), filled(1+r.IntN(3)*r.IntN(400), byte(i))
		}
		got, _ := deliver(t, clients, of, replies)
		if g, w := sorted(got), sorted(sent(clients, of, replies)); g != w {
			t.Fatalf("seed %d: got %s, want %s", seed, g, w)
		}
	}
}

// The kernel refuses to cut where a piece is longer than the link takes.
func TestWhatCannotBeCutIsSentSingly(t *testing.T) {
	ns := namespace(t)
	in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(lo, 600); err != nil {
			return err
		}
		of, replies := []int{0, 0, 1, 0}, [][]byte{filled(900, 'a'), filled(900, 'b'), filled(50, 'c'), filled(80, 'd')}
		got, messages := deliver(t, 2, of, replies)
		if g, w := sorted(got), sorted(sent(2, of, replies)); g != w || messages != 2 {
			t.Errorf("%d messages, got %s, want %s", messages, g, w)
		}
		return nil
	})
}
