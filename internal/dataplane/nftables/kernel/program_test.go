//go:build linux

package kernel_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
)

func TestConnectionsGoToEveryEndpointOfTheirFrontend(t *testing.T) {
	k := nfnltest.New()
	apply(t, open(t, k), snapshot(web("web", 1, "10.244.1.5", "10.244.2.6")))
	both := "dnat [10.244.1.5:8080 10.244.2.6:8080] masquerade="
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), both+"false")
	expect(t, k, key(model.Outside, "10.96.0.1:80", model.TCP), both+"true")
	expect(t, k, key(model.Inside, "172.30.0.11:30001", model.TCP), both+"true")
	expect(t, k, key(model.Outside, "172.30.0.11:30001", model.TCP), both+"true")
}

func TestTheRestOfTheServiceRange(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	dns := web("kube-dns", 10, "10.244.1.9")
	apply(t, a, snapshot(web("web", 1, "10.244.1.5"), web("none", 2), dns))
	expect(t, k, key(model.Inside, "10.96.0.2:80", model.TCP), "reset [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.UDP), "unreachable [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.1:81", model.TCP), "reset [] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.99:80", model.TCP), "drop [] masquerade=false")
	expect(t, k, key(model.Inside, "192.0.2.1:80", model.TCP), "accept [] masquerade=false")
	a.Except(dns.Name)
	apply(t, a, snapshot(web("web", 1, "10.244.1.5"), web("none", 2), dns))
	expect(t, k, key(model.Inside, "10.96.0.10:80", model.TCP), "accept [] masquerade=false")
	a.Except()
	apply(t, a, snapshot(web("web", 1, "10.244.1.5"), web("none", 2), dns))
	expect(t, k, key(model.Inside, "10.96.0.10:80", model.TCP), "dnat [10.244.1.9:8080] masquerade=false")
}

func TestEndpointThatReachesItselfIsMasqueraded(t *testing.T) {
	k := nfnltest.New()
	apply(t, open(t, k), snapshot(web("web", 1, "10.244.1.5", "10.244.2.6")))
	for to, want := range map[string]string{"10.244.1.5:8080": "snat", "10.244.1.6:8080": "accept"} {
		ep := netip.MustParseAddrPort(to)
		r := k.Run(nfnl.IPv4, kernel.DefaultTable, "postrouting", nfnltest.Packet{Src: netip.AddrPortFrom(ep.Addr(), 40000), Dst: ep,
			Protocol: uint8(model.TCP), Original: netip.MustParseAddrPort("10.96.0.1:80")})
		if r.Action != want {
			t.Errorf("%s to itself: %s, want %s", ep.Addr(), r.Action, want)
		}
	}
}

// counting counts the batches that change something.
type counting struct {
	*nfnltest.Kernel
	commits int
}

func (c *counting) Commit(b *nfnl.Batch) error { c.commits++; return c.Kernel.Commit(b) }

func TestRestartChangesNothing(t *testing.T) {
	k := &counting{Kernel: nfnltest.New()}
	s := snapshot(web("web", 1, "10.244.1.5", "10.244.2.6"), web("none", 2))
	start := func() {
		t.Helper()
		a, err := kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: serviceCIDRs})
		if err != nil {
			t.Fatal(err)
		}
		apply(t, a, s)
	}
	start()
	k.commits = 0
	start()
	if k.commits > 0 {
		t.Errorf("%d commits", k.commits)
	}
}

// refusing refuses every batch with some bytes in it.
type refusing struct {
	*nfnltest.Kernel
	bytes []byte
}

func (r *refusing) Commit(b *nfnl.Batch) error {
	for m := range b.Messages() {
		if r.bytes != nil && bytes.Contains(m.Body, r.bytes) {
			return &nfnl.Error{Errno: unix.EINVAL, Message: "on purpose"}
		}
	}
	return r.Kernel.Commit(b)
}

func TestOneRefusedServiceDoesNotHoldUpTheOthers(t *testing.T) {
	k := &refusing{Kernel: nfnltest.New()}
	a, err := kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: serviceCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	broken := web("broken", 3, "10.244.1.5")
	apply(t, a, snapshot(broken))
	s := snapshot(web("a", 1, "10.244.1.2"), web("b", 2, "10.244.1.3"), web("broken", 3, "10.244.1.66"), web("c", 4, "10.244.1.4"))
	k.bytes = []byte{10, 244, 1, 66}
	for range 2 {
		failed, err := a.Program(context.Background(), s)
		if err != nil || len(failed) != 1 || !errors.Is(failed[broken.Name], unix.EINVAL) {
			t.Fatalf("failed %v, err %v", failed, err)
		}
	}
	for _, c := range [][2]string{{"10.96.0.1:80", "10.244.1.2"}, {"10.96.0.2:80", "10.244.1.3"}, {"10.96.0.4:80", "10.244.1.4"}, {"10.96.0.3:80", "10.244.1.5"}} {
		expect(t, k.Kernel, key(model.Inside, c[0], model.TCP), "dnat ["+c[1]+":8080] masquerade=false")
	}
	k.bytes = nil
	apply(t, a, s)
	expect(t, k.Kernel, key(model.Inside, "10.96.0.3:80", model.TCP), "dnat [10.244.1.66:8080] masquerade=false")
}

func TestAServiceWhoseNamesAreTooLongDoesNotHoldUpTheOthers(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	long := web("long", 2, "10.244.1.3")
	port := strings.Repeat("p", nfnl.MaxComment)
	for i := range long.Frontends {
		long.Frontends[i].PortName = port
	}
	long.Slices[0].Backends[0].PortName = port
	failed, err := a.Program(context.Background(), snapshot(web("a", 1, "10.244.1.2"), long, web("z", 3, "10.244.1.4")))
	var large *kernel.TooLargeError
	if err != nil || len(failed) != 1 || !errors.As(failed[long.Name], &large) {
		t.Fatalf("failed %v, err %v", failed, err)
	}
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), "dnat [10.244.1.2:8080] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.3:80", model.TCP), "dnat [10.244.1.4:8080] masquerade=false")
}

// A slot that no pool can have is somebody else's, whatever its number: nothing of its size is allocated.
func TestASlotOfAnyNumberThatSomebodyAddsIsDeleted(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	s := snapshot(web("a", 1, "10.244.1.2"))
	apply(t, a, s)
	before := k.Dump()
	b := nfnl.NewBatch()
	b.AddElements(nfnl.IPv4, kernel.DefaultTable, "slot", nfnl.Element{
		Key: append(nfnl.Number(1), nfnl.Number(math.MaxUint32)...), Data: append(nfnl.Number(0), nfnl.Number(1)...)})
	if err := k.Commit(b); err != nil {
		t.Fatal(err)
	}
	apply(t, open(t, k), s)
	if d := cmp.Diff(before, k.Dump()); d != "" {
		t.Error(d)
	}
}

func TestFrontendOfTwoServicesStaysWithTheFirst(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	apply(t, a, snapshot(web("first", 1, "10.244.1.2")))
	both := snapshot(web("first", 1, "10.244.1.2"), web("second", 1, "10.244.1.3"))
	failed, err := a.Program(context.Background(), both)
	var conflict *kernel.ConflictError
	if err != nil || len(failed) != 1 || !errors.As(failed[model.ServiceName{Namespace: "default", Name: "second"}], &conflict) {
		t.Fatalf("failed %v, err %v", failed, err)
	}
	if conflict.Winner.Name != "first" {
		t.Errorf("won by %s", conflict.Winner)
	}
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), "dnat [10.244.1.2:8080] masquerade=false")
	apply(t, a, snapshot(web("second", 1, "10.244.1.3")))
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), "dnat [10.244.1.3:8080] masquerade=false")
}

func TestNothingIsDeletedBeforeTheSnapshotIsComplete(t *testing.T) {
	k := nfnltest.New()
	apply(t, open(t, k), snapshot(web("old", 1, "10.244.1.2")))
	a := open(t, k)
	incomplete := model.Empty().With(func(e *model.Edit) { e.SetService(web("new", 2, "10.244.1.3")) }).On(theNode)
	apply(t, a, incomplete)
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), "dnat [10.244.1.2:8080] masquerade=false")
	expect(t, k, key(model.Inside, "10.96.0.2:80", model.TCP), "dnat [10.244.1.3:8080] masquerade=false")
	apply(t, a, edited(incomplete).On(theNode))
	expect(t, k, key(model.Inside, "10.96.0.1:80", model.TCP), "drop [] masquerade=false")
}

func TestAffinityNeverLeavesTheService(t *testing.T) {
	k := nfnltest.New()
	a := open(t, k)
	sticky := func(name string, id int, endpoints ...string) *model.Service {
		s := web(name, id, endpoints...)
		s.SessionAffinity = time.Hour
		return s
	}
	ask := func(random uint32) netip.Addr {
		t.Helper()
		to := key(model.Inside, "10.96.0.1:80", model.TCP)
		r := k.Run(nfnl.IPv4, kernel.DefaultTable, "prerouting", nfnltest.Packet{Src: client(to), Dst: netip.AddrPortFrom(to.Addr, to.Port),
			Protocol: uint8(model.TCP), Random: func(uint32) uint32 { return random }, Learn: true})
		if r.Action != "dnat" {
			t.Fatalf("got %+v", r)
		}
		return r.To.Addr()
	}
	apply(t, a, snapshot(sticky("web", 1, "10.244.1.2", "10.244.1.3", "10.244.1.4")))
	first := ask(1)
	if again := ask(2); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	left := slices.DeleteFunc([]string{"10.244.1.2", "10.244.1.3", "10.244.1.4"}, func(e string) bool { return e == first.String() })
	apply(t, a, snapshot(sticky("web", 1, left...), sticky("other", 2, "10.244.2.9")))
	a = open(t, k) // ids start after those that clients remember
	apply(t, a, snapshot(sticky("web", 1, left...), sticky("other", 2, "10.244.2.9", "10.244.2.8")))
	second := ask(1)
	if !slices.Contains(left, second.String()) || ask(0) != second {
		t.Errorf("goes to %s, then %s; the Service has %v", second, ask(0), left)
	}
}
