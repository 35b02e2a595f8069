//go:build linux

package ndp

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"minato/internal/announce/lan"
	"minato/internal/announce/lan/lantest"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// link is a node and another machine, linked.
type link struct {
	node, client netns.NS
	mac          string // of the node
}

func newLink(t *testing.T) link {
	t.Helper()
	l := link{node: netnstest.Namespace(t, "node"), client: netnstest.Namespace(t, "client"), mac: "02:00:00:00:00:0b"}
	netnstest.Link(t, l.node, "eth0", "2001:db8::11/64", l.client, "lan0", "2001:db8::1/64")
	netnstest.Run(t, l.node, "ip", "link", "set", "eth0", "address", l.mac)
	return l
}

// speak runs a Speaker on the node until the test ends.
func (l link) speak(t *testing.T) *lan.Speaker {
	t.Helper()
	return l.speakWith(t, nil)
}

func (l link) speakWith(t *testing.T, conflict func([]model.ServiceName, string)) *lan.Speaker {
	t.Helper()
	s := New(Config{Node: "node1", Netns: l.node, Addr: node, Log: lantest.Log(t), Conflict: conflict})
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

// known waits until the client's kernel has an answer for who has the address, and returns it.
func (l link) known(t *testing.T, a netip.Addr, within time.Duration) string {
	t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		// Nothing listens there, but a packet makes the kernel ask.
		if c, err := l.client.DialContext(t.Context(), "udp", net.JoinHostPort(a.String(), "9")); err == nil {
			_, _ = c.Write([]byte("x"))
			c.Close()
		}
		fields := strings.Fields(netnstest.Run(t, l.client, "ip", "neigh", "show", a.String()))
		for i, f := range fields {
			if f == "lladdr" {
				return fields[i+1]
			}
		}
	}
	return ""
}

func TestTheKernelOfAClientLearnsTheAddress(t *testing.T) {
	l := newLink(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	if got := l.known(t, vip, patience); got != l.mac {
		t.Errorf("the client knows %q, want %s", got, l.mac)
	}
}

// A client asks for what it knows by unicast, and forgets what nobody confirms (RFC 4861, 7.3.3).
func TestAClientThatAsksAgainIsAnswered(t *testing.T) {
	l := newLink(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	l.known(t, vip, patience)
	netnstest.Run(t, l.client, "ip", "neigh", "replace", vip.String(), "lladdr", l.mac, "dev", "lan0", "nud", "probe")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		state := netnstest.Run(t, l.client, "ip", "neigh", "show", vip.String())
		if strings.Contains(state, "REACHABLE") {
			return
		}
		if strings.Contains(state, "FAILED") || time.Now().After(deadline) {
			t.Fatalf("the client knows %q", state)
		}
	}
}

func TestAnAddressThatMovedIsToldToWhoKnowsIt(t *testing.T) {
	l := newLink(t)
	l.known(t, vip, 100*time.Millisecond)
	netnstest.Run(t, l.client, "ip", "neigh", "replace", vip.String(), "lladdr", "02:00:00:00:00:77", "dev", "lan0", "nud", "stale")
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		state := netnstest.Run(t, l.client, "ip", "neigh", "show", vip.String())
		if strings.Contains(state, l.mac) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the client knows %q", state)
		}
	}
}

func TestWithdrawnIsNotAnswered(t *testing.T) {
	l := newLink(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	l.known(t, vip, patience)
	if err := s.Withdraw(t.Context(), lantest.World(vip)); err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, l.client, "ip", "neigh", "flush", "dev", "lan0")
	if got := l.known(t, vip, 300*time.Millisecond); got != "" {
		t.Errorf("still answered, by %s", got)
	}
}

func TestTheNodesOwnAddressIsTheKernels(t *testing.T) {
	l := newLink(t)
	s := l.speak(t)
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	if got := l.known(t, node, patience); got != l.mac {
		t.Errorf("the client knows %q, want %s", got, l.mac)
	}
	if got := l.known(t, vip.Next(), 300*time.Millisecond); got != "" {
		t.Errorf("an address that nobody has is answered by %s", got)
	}
}

func TestAMachineWithTheSameAddressIsFoundAndToldOf(t *testing.T) {
	l := newLink(t)
	netnstest.Run(t, l.client, "ip", "address", "add", vip.String()+"/64", "dev", "lan0", "nodad")
	told := make(chan string, 1)
	s := l.speakWith(t, func(_ []model.ServiceName, text string) { told <- text })
	lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	select {
	case got := <-told:
		if !strings.Contains(got, vip.String()) {
			t.Errorf("told %q", got)
		}
	case <-time.After(patience):
		t.Fatal("told nothing")
	}
}
