//go:build linux

package heartbeat

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// wait is how long anything may take on a busy machine.
const wait = 30 * time.Second

// ear is a Heart in a test, and what it has told.
type ear struct {
	*Heart
	mu   sync.Mutex
	told Heard
}

func (e *ear) state(name string) (model.PeerState, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.told.Peers, func(p model.Peer) bool { return p.NodeName == name })
	if i < 0 {
		return 0, false
	}
	return e.told.Peers[i].State, true
}

func listenTo(t *testing.T, ns netns.NS, self Member, all []Member, witness Member) *ear {
	t.Helper()
	e := &ear{}
	e.Heart = New(Config{
		Self: self, Netns: ns, Members: func() []Member { return all }, Witness: witness, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Heard: func(h Heard) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.told = h
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *ear) eventually(t *testing.T, name string, want model.PeerState) {
	t.Helper()
	for deadline := time.Now().Add(wait); ; time.Sleep(interval / 10) {
		if got, ok := e.state(name); ok && got == want {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("%s is %d (%t), want %d", name, got, ok, want)
		}
	}
}

func member(name, addr string) Member { return Member{Name: name, Addr: netip.MustParseAddr(addr)} }

func TestAgentsHearEachOtherUntilTheCableIsPulled(t *testing.T) {
	a, b := netnstest.Namespace(t, "a"), netnstest.Namespace(t, "b")
	netnstest.Link(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	all := []Member{member("a", "192.0.2.1"), member("b", "192.0.2.2")}
	// The witness is on a's side of the cable.
	witness := netnstest.Namespace(t, "witness")
	netnstest.Link(t, a, "eth1", "198.51.100.1/24", witness, "eth0", "198.51.100.2/24")
	netnstest.Run(t, a, "sysctl", "net.ipv4.ip_forward=1")
	netnstest.Run(t, b, "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
	netnstest.Run(t, witness, "ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1")
	lan := member("lan", "198.51.100.2")
	listenTo(t, witness, lan, all, Member{})
	// a's packets to the witness have the address of its other link unless it says otherwise: it does, being bound.
	ea, eb := listenTo(t, a, all[0], all, lan), listenTo(t, b, all[1], all, lan)
	ea.eventually(t, "b", model.PeerFit)
	eb.eventually(t, "a", model.PeerFit)
	netnstest.Run(t, a, "ip", "link", "set", "eth0", "down")
	ea.eventually(t, "b", model.PeerSilent)
	ea.eventually(t, "a", model.PeerFit)
	eb.eventually(t, "b", model.PeerCutOff)
	netnstest.Run(t, a, "ip", "link", "set", "eth0", "up")
	ea.eventually(t, "b", model.PeerNew)
	ea.eventually(t, "b", model.PeerFit)
	eb.eventually(t, "b", model.PeerFit)
}

func TestWhoPausesIsSilentAndNewAfterwards(t *testing.T) {
	a, b := netnstest.Namespace(t, "a"), netnstest.Namespace(t, "b")
	netnstest.Link(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	all := []Member{member("a", "192.0.2.1"), member("b", "192.0.2.2")}
	ea, eb := listenTo(t, a, all[0], all, Member{}), listenTo(t, b, all[1], all, Member{})
	ea.eventually(t, "b", model.PeerFit)
	eb.Pause(true)
	ea.eventually(t, "b", model.PeerSilent)
	eb.Pause(false)
	ea.eventually(t, "b", model.PeerNew)
	ea.eventually(t, "b", model.PeerFit)
}

func TestAHeartbeatFromAWrongAddressIsNobodys(t *testing.T) {
	a, b := netnstest.Namespace(t, "a"), netnstest.Namespace(t, "b")
	netnstest.Link(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	netnstest.Run(t, b, "ip", "address", "add", "192.0.2.3/24", "dev", "eth0")
	all := []Member{member("a", "192.0.2.1"), member("b", "192.0.2.2"), member("c", "192.0.2.3")}
	ea := listenTo(t, a, all[0], all, Member{})
	listenTo(t, b, member("b", "192.0.2.3"), all, Member{}) // says that it is b, from c's address
	ec := listenTo(t, b, member("c", "192.0.2.2"), all, Member{})
	ec.eventually(t, "a", model.PeerFit)
	time.Sleep(5 * interval) // long enough to be heard
	if _, ok := ea.state("b"); ok {
		t.Error("b is heard")
	}
}
