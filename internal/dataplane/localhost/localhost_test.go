package localhost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"minato/internal/apply"
	"minato/internal/dataplane/localhost"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

const (
	addr4, addr6 = "172.30.0.11", "fd00:30::11"
	here4, here6 = "127.0.0.1:30080", "[::1]:30080"
)

// world is a node with a server. What listens at the node's own addresses stands in for nftables and an endpoint.
type world struct {
	t    *testing.T
	ns   netns.NS
	self *model.Node
	s    *localhost.Server
	snap *model.Snapshot
	stop context.CancelFunc // of the server that runs
}

func newWorld(t *testing.T) *world { return newWorldOf(t, localhost.Config{}) }

func newWorldOf(t *testing.T, cfg localhost.Config) *world {
	w := &world{t: t, ns: netnstest.Namespace(t, "node"), snap: model.Empty(),
		self: &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr(addr4), netip.MustParseAddr(addr6)}}}
	for _, a := range []string{addr4 + "/32", addr6 + "/128"} {
		netnstest.Run(t, w.ns, "ip", "address", "add", a, "dev", "lo")
	}
	netnstest.Settle(t, w.ns)
	cfg.Netns, cfg.Log = w.ns, slog.New(slog.DiscardHandler)
	w.run(localhost.New(cfg))
	return w
}

// run makes a server the world's, until stop.
func (w *world) run(s *localhost.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.s, w.stop = s, cancel
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// service has the NodePort 30080, in both families, of a protocol.
func service(name string, p model.Protocol) *model.Service {
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, Proxied: true}
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.AddrPortFrom(a, 30080), Protocol: p, Kind: model.NodePort})
	}
	return s
}

func nothing(model.ServiceName) bool { return false }

// apply takes the node to the next snapshot; only what is in failing cannot be programmed.
func (w *world) apply(held func(model.ServiceName) bool, edit func(*model.Edit)) error {
	w.t.Helper()
	w.snap = w.snap.With(func(e *model.Edit) { e.SetComplete(); edit(e) }).On(w.self)
	if err := w.s.Withdraw(w.t.Context(), w.snap); err != nil {
		w.t.Fatal(err)
	}
	return w.s.Publish(w.t.Context(), w.snap, held)
}

func (w *world) must(edit func(*model.Edit)) {
	w.t.Helper()
	if err := w.apply(nothing, edit); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refused(at string) {
	w.t.Helper()
	if _, err := netnstest.Ask(w.ns, "tcp", at); !errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Errorf("%s: got %v, want connection refused", at, err)
	}
}

func TestLoopbackLeadsToTheNodesOwnAddressOfTheFamily(t *testing.T) {
	w := newWorld(t)
	netnstest.ServeTCP(t, w.ns, "four", addr4+":30080")
	netnstest.ServeTCP(t, w.ns, "six", "["+addr6+"]:30080")
	w.must(func(e *model.Edit) { e.SetService(service("web", model.TCP)) })
	for at, want := range map[string]string{here4: "four", here6: "six"} {
		if a := netnstest.MustAsk(t, w.ns, "tcp", at); a.Name != want {
			t.Errorf("%s: answered by %s, want %s", at, a.Name, want)
		}
	}
	w.must(func(e *model.Edit) { e.DeleteService(model.ServiceName{Namespace: "default", Name: "web"}) })
	w.refused(here4)
	w.refused(here6)
}

func TestOnlyNodePortsOfNodesThatAnswerThere(t *testing.T) {
	w := newWorld(t)
	for _, p := range []model.Protocol{model.UDP, model.SCTP} {
		w.must(func(e *model.Edit) { e.SetService(service("web", p)) })
		w.refused(here4)
	}
	netnstest.ServeTCP(t, w.ns, "four", addr4+":30080")
	for ranges, answered := range map[string]bool{"172.30.0.0/16": false, "127.0.0.0/8": false, "172.30.0.0/16 127.0.0.0/8": true} {
		self := *w.self
		self.NodePorts = nil
		for _, r := range strings.Fields(ranges) {
			self.NodePorts = append(self.NodePorts, netip.MustParsePrefix(r))
		}
		w.self = &self
		w.must(func(e *model.Edit) { e.SetService(service("web", model.TCP)) })
		if _, err := netnstest.Ask(w.ns, "tcp", here4); (err == nil) != answered {
			t.Errorf("--nodeport-addresses %s: %v", ranges, err)
		}
	}
}

func TestWhatIsNotProgrammedIsNotAnswered(t *testing.T) {
	w := newWorld(t)
	netnstest.ServeTCP(t, w.ns, "four", addr4+":30080")
	name := model.ServiceName{Namespace: "default", Name: "web"}
	if err := w.apply(func(n model.ServiceName) bool { return n == name }, func(e *model.Edit) { e.SetService(service("web", model.TCP)) }); err != nil {
		t.Fatal(err)
	}
	w.refused(here4)
	w.must(func(*model.Edit) {}) // it is programmed now, and has not changed
	netnstest.MustAsk(t, w.ns, "tcp", here4)
}

func TestAPortInUseIsReportedAndTakenWhenItIsFree(t *testing.T) {
	w := newWorld(t)
	netnstest.ServeTCP(t, w.ns, "four", addr4+":30080")
	other, err := w.ns.Listen(t.Context(), "tcp", here4)
	if err != nil {
		t.Fatal(err)
	}
	err = w.apply(nothing, func(e *model.Edit) { e.SetService(service("web", model.TCP)) })
	if !errors.Is(err, syscall.EADDRINUSE) || !errors.Is(err, apply.ErrWithdrawn) || !strings.HasPrefix(fmt.Sprint(err), "the NodePort of Service default/web is not answered at 127.0.0.1:30080") {
		t.Errorf("got %v", err)
	}
	other.Close()
	w.must(func(*model.Edit) {})
	netnstest.MustAsk(t, w.ns, "tcp", here4)
}

func TestAPortGoesToTheServiceThatHasItNext(t *testing.T) {
	w := newWorld(t)
	netnstest.ServeTCP(t, w.ns, "four", addr4+":30080")
	w.must(func(e *model.Edit) { e.SetService(service("b", model.TCP)) })
	w.must(func(e *model.Edit) {
		e.DeleteService(model.ServiceName{Namespace: "default", Name: "b"})
		e.SetService(service("a", model.TCP))
	})
	netnstest.MustAsk(t, w.ns, "tcp", here4)
}

// Each direction ends for itself, as over a plain connection; and a refused one is not taken for an empty answer.
func TestEndsArePassedOn(t *testing.T) {
	w := newWorld(t)
	l, err := w.ns.Listen(t.Context(), "tcp", addr4+":30080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			got, _ := io.ReadAll(c) // until the client has said all
			fmt.Fprintf(c, "%d bytes", len(got))
			c.Close()
		}
	}()
	w.must(func(e *model.Edit) { e.SetService(service("web", model.TCP)) })
	dial := func() (net.Conn, error) {
		c, err := w.ns.DialContext(t.Context(), "tcp", here4)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			t.Cleanup(func() { c.Close() })
		}
		return c, err
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("%d bytes", size) {
		t.Errorf("got %q, %v", got, err)
	}
	l.Close()
	c, err = dial()
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) { // it may come before connect(2) returns
		t.Errorf("where nothing answers: got %v, want a reset", err)
	}
}
