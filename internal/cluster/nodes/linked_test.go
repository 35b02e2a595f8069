//go:build linux

package nodes

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

// reaches tries for a moment to connect from one namespace to an address of another.
func reaches(t *testing.T, from, to netns.NS, addr string) bool {
	t.Helper()
	l, err := to.Listen(t.Context(), "tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := from.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// comesBack tries again while a neighbour that was looked for in vain is still given up: the kernel then refuses at once.
func comesBack(is func() bool) bool {
	deadline := time.Now().Add(45 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

func TestANodeWithoutACableIsReachedByNobodyAndKeepsItsPods(t *testing.T) {
	w := netnstest.New(t)
	c := config(t, w, 2)
	n := up(t, c)
	p, q := attach(t, n, "node1"), attach(t, n, "node1")
	other := func() bool {
		return reaches(t, nodeNetns(t, n, "192.168.0.12"), nodeNetns(t, n, "node1"), "172.30.0.11")
	}
	host := func() bool { return reaches(t, nodeNetns(t, n, "node1"), w.Host, "172.30.0.1") }
	if !comesBack(other) || !comesBack(host) {
		t.Fatal("not reached at first")
	}
	before := netnstest.Run(t, nodeNetns(t, n, "node1"), "ip", "-4", "route")
	if err := n.SetLinked(t.Context(), "node1", false); err != nil {
		t.Fatal(err)
	}
	if other() || host() {
		t.Error("packets still pass")
	}
	if !reaches(t, p.NS, q.NS, q.addr.String()) {
		t.Error("pods of the node do not reach each other")
	}

	n.Close()
	c.Nodes[0].Unlinked = true
	n = up(t, c)
	if host() {
		t.Error("another Up has plugged the cable in")
	}
	if err := n.SetLinked(t.Context(), "node1", true); err != nil {
		t.Fatal(err)
	}
	if !comesBack(other) || !comesBack(host) {
		t.Error("not reached again")
	}
	if d := netnstest.Diff(before, netnstest.Run(t, nodeNetns(t, n, "node1"), "ip", "-4", "route")); d != "" {
		t.Errorf("routes before and after:\n%s", d)
	}
	far := netip.MustParseAddr(netnstest.FarAddr)
	if seen := seenBy(t, w.Internet, far, p.NS); seen.String() != netnstest.HostAddr {
		t.Errorf("a pod is seen as %s", seen)
	}
}

func TestTheCableOfANodeThatIsNotThere(t *testing.T) {
	w := netnstest.New(t)
	n := up(t, config(t, w, 1))
	if err := n.SetLinked(t.Context(), "nobody", false); !errors.Is(err, ErrNoNode) {
		t.Errorf("got %v", err)
	}
}
