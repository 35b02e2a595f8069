//go:build linux

package arp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"minato/internal/announce/lan"
	"minato/internal/announce/lan/lantest"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// patience is how long anything may take on a busy machine.
const patience = 20 * time.Second

// link is a node and another machine, linked.
type link struct {
	node, client netns.NS
	nodeMAC      lan.MAC
}

// newLAN makes the node as package nodes makes it: it answers for its own addresses alone.
func newLAN(t *testing.T) link {
	t.Helper()
	l := link{node: netnstest.Namespace(t, "node"), client: netnstest.Namespace(t, "client")}
	netnstest.Link(t, l.node, "eth0", "192.0.2.11/24", l.client, "lan0", "192.0.2.1/24")
	netnstest.Run(t, l.node, "sysctl", "net.ipv4.conf.eth0.arp_ignore=1")
	hw, err := net.ParseMAC(strings.TrimSpace(linkAddress(t, l.node, "eth0")))
	if err != nil {
		t.Fatal(err)
	}
	l.nodeMAC = lan.MAC(hw)
	return l
}

func linkAddress(t *testing.T, ns netns.NS, link string) string {
	t.Helper()
	fields := strings.Fields(netnstest.Run(t, ns, "ip", "-oneline", "link", "show", link))
	for i, f := range fields {
		if f == "link/ether" {
			return fields[i+1]
		}
	}
	t.Fatalf("link %s has no address: %v", link, fields)
	return ""
}

// speak runs a Speaker on the node until the test ends.
func (l link) speak(t *testing.T) *lan.Speaker {
	t.Helper()
	return l.speakWith(t, nil)
}

func (l link) speakWith(t *testing.T, conflict func([]model.ServiceName, string)) *lan.Speaker {
	t.Helper()
	s := New(Config{Node: "node1", Netns: l.node, Addr: netip.MustParseAddr("192.0.2.11"), Log: lantest.Log(t), Conflict: conflict})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	})
	return s
}

// ask sends requests until one is answered, and returns who answered; ok is false when lantest.Nobody did in time. It hears
// replies to itself only, so gratuitous ones do not count.
func (l link) ask(t *testing.T, a netip.Addr, within time.Duration) (from lan.MAC, ok bool) {
	t.Helper()
	listener := l.listen(t)
	asker, err := lan.OpenSocket(l.client, client, unix.ETH_P_ARP, fromOthers)
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		if err := asker.Send(lan.Everybody, packet{op: request, sender: asker.MAC, senderIP: client, targetIP: a}.bytes()); err != nil {
			t.Fatal(err)
		}
		for {
			p, ok := listener.next(t, 50*time.Millisecond)
			if !ok {
				break
			}
			if p.op == reply && p.target == asker.MAC && p.senderIP == a {
				return p.sender, true
			}
		}
	}
	return lan.MAC{}, false
}

// listener hears all ARP at the client, replies too.
type listener struct{ socket *lan.Socket }

func (l link) listen(t *testing.T) listener {
	t.Helper()
	s, err := lan.OpenSocket(l.client, client, unix.ETH_P_ARP, []bpf.Instruction{bpf.RetConstant{Val: 64}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return listener{s}
}

// next is the next packet; ok is false when none came in time.
func (l listener) next(t *testing.T, within time.Duration) (p packet, ok bool) {
	t.Helper()
	if err := l.socket.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	for {
		var buf [64]byte
		n, err := l.socket.Receive(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return packet{}, false
		}
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := parse(buf[:n]); ok {
			return p, true
		}
	}
}

func TestWhoHasIsAnsweredWithTheLinksAddress(t *testing.T) {
	l := newLAN(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	from, ok := l.ask(t, vip, patience)
	if !ok || from != l.nodeMAC {
		t.Errorf("answered: %t, by %x, want %x", ok, from, l.nodeMAC)
	}
}

func TestTheKernelOfAClientLearnsTheAddress(t *testing.T) {
	l := newLAN(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	for deadline := time.Now().Add(patience); ; {
		// Nothing listens there, but a packet makes the kernel ask.
		if c, err := l.client.DialContext(t.Context(), "udp", vip.String()+":9"); err == nil {
			c.Write([]byte("x"))
			c.Close()
		}
		known := netnstest.Run(t, l.client, "ip", "neigh", "show", vip.String())
		if strings.Contains(known, net.HardwareAddr(l.nodeMAC[:]).String()) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the client knows %q", known)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestAnAnswerComesOnceAndNotAlsoFromTheKernel(t *testing.T) {
	l := newLAN(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	l.ask(t, vip, patience)
	listener := l.listen(t)
	asker, err := lan.OpenSocket(l.client, client, unix.ETH_P_ARP, fromOthers)
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	if err := asker.Send(lan.Everybody, packet{op: request, sender: asker.MAC, senderIP: client, targetIP: vip}.bytes()); err != nil {
		t.Fatal(err)
	}
	answers := 0
	for {
		p, ok := listener.next(t, 200*time.Millisecond)
		if !ok {
			break
		}
		if p.op == reply && p.target == asker.MAC {
			answers++
		}
	}
	if answers != 1 {
		t.Errorf("%d answers to one request", answers)
	}
}

func TestGratuitousAnnouncementsAreSeenInBothForms(t *testing.T) {
	l := newLAN(t)
	listener := l.listen(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	var seen [3]bool
	for !seen[request] || !seen[reply] {
		p, ok := listener.next(t, patience)
		if !ok {
			t.Fatalf("seen requests %t, replies %t", seen[request], seen[reply])
		}
		if p.senderIP == vip && p.targetIP == vip && p.sender == l.nodeMAC && p.op <= reply {
			seen[p.op] = true
		}
	}
}

func TestWithdrawnIsNotAnswered(t *testing.T) {
	l := newLAN(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	if _, ok := l.ask(t, vip, patience); !ok {
		t.Fatal("not answered while it was announced")
	}
	if err := s.Withdraw(t.Context(), lantest.World(vip)); err != nil {
		t.Fatal(err)
	}
	if from, ok := l.ask(t, vip, 300*time.Millisecond); ok {
		t.Errorf("still answered by %x", from)
	}
}

func TestTheNodesOwnAddressIsTheKernels(t *testing.T) {
	l := newLAN(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	if from, ok := l.ask(t, netip.MustParseAddr("192.0.2.11"), patience); !ok || from != l.nodeMAC {
		t.Errorf("answered: %t, by %x", ok, from)
	}
	if from, ok := l.ask(t, vip.Next(), 300*time.Millisecond); ok {
		t.Errorf("an address that lantest.Nobody has is answered by %x", from)
	}
}

func TestALinkThatComesLaterIsFound(t *testing.T) {
	l := newLAN(t)
	netnstest.Run(t, l.node, "ip", "address", "del", "192.0.2.11/24", "dev", "eth0")
	s := l.speak(t)
	if err := s.Withdraw(t.Context(), lantest.World(vip, "web")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !errors.Is(s.Publish(t.Context(), lantest.World(vip, "web"), lantest.Nobody), lan.ErrNoLink); {
		if time.Now().After(deadline) {
			t.Fatal("nothing says that the link is not there")
		}
		time.Sleep(time.Millisecond)
	}
	netnstest.Run(t, l.node, "ip", "address", "add", "192.0.2.11/24", "dev", "eth0")
	if from, ok := l.ask(t, vip, patience); !ok || from != l.nodeMAC {
		t.Errorf("answered: %t, by %x", ok, from)
	}
}

func TestOnlyARPToThisLinkWakesTheSpeaker(t *testing.T) {
	l := newLAN(t)
	hears, err := lan.OpenSocket(l.node, netip.MustParseAddr("192.0.2.11"), unix.ETH_P_ARP, fromOthers)
	if err != nil {
		t.Fatal(err)
	}
	defer hears.Close()
	asker, err := lan.OpenSocket(l.client, client, unix.ETH_P_ARP, fromOthers)
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	notForUs := lan.MAC{2, 0, 0, 0, 0, 0x77}
	last := packet{op: request, sender: asker.MAC, senderIP: client, targetIP: vip}
	for _, x := range []struct {
		to lan.MAC
		p  packet
	}{
		{notForUs, packet{op: reply, sender: asker.MAC, senderIP: client, target: lan.Everybody, targetIP: client}},
		{notForUs, packet{op: request, sender: asker.MAC, senderIP: client, targetIP: vip.Next()}},
		{lan.Everybody, last},
	} {
		if err := asker.Send(x.to, x.p.bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := hears.Send(lan.Everybody, whoHas(vip).bytes()); err != nil { // its own is not heard either
		t.Fatal(err)
	}
	if err := hears.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var buf [64]byte
	n, err := hears.Receive(buf[:])
	if err != nil || !bytes.Equal(buf[:n], last.bytes()) {
		t.Errorf("heard %v (%v), want only %v", buf[:n], err, last.bytes())
	}
	if err := hears.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := hears.Receive(buf[:]); err == nil {
		t.Errorf("also heard %v", buf[:n])
	}
}

func TestAMachineWithTheSameAddressIsFoundAndToldOf(t *testing.T) {
	l := newLAN(t)
	netnstest.Run(t, l.client, "ip", "address", "add", vip.String()+"/24", "dev", "lan0")
	want := "another machine on the LAN, " + linkAddress(t, l.client, "lan0") + ", has " + vip.String() + " as well"
	told := make(chan string, 1)
	s := l.speakWith(t, func(services []model.ServiceName, text string) { told <- fmt.Sprint(services) + text })
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	select {
	case got := <-told:
		if !strings.HasPrefix(got, "[default/web]"+want) {
			t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatal("told nothing")
	}
	if got := s.Problem(); !strings.HasPrefix(got, want) {
		t.Errorf("the problem is %q, want %q", got, want)
	}
}
