package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
	"minato/internal/handover"
	"minato/internal/model"
)

// testZone is the zone of all tests here.
var testZone = dns.Zone{
	Domain:  "cluster.local",
	Reverse: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("10.244.0.0/16")},
	Addrs:   []netip.Addr{netip.MustParseAddr("10.96.0.10")},
	Service: model.ServiceName{Namespace: "kube-system", Name: "kube-dns"},
}

// world is a small complete cluster.
func world() *model.Snapshot {
	addr := netip.MustParseAddr
	return model.Empty().With(func(e *model.Edit) {
		e.SetNamespace("default", true)
		e.SetService(&model.Service{
			Name: model.ServiceName{Namespace: "default", Name: "web"}, ClusterIPs: []netip.Addr{addr("10.96.1.1")},
			Ports: []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}},
		})
		var many []model.Backend
		for i := range 120 {
			many = append(many, model.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 1)}), 80), Protocol: model.TCP, Ready: true})
		}
		e.SetService(&model.Service{
			Name: model.ServiceName{Namespace: "default", Name: "many"}, Headless: true, Slices: []*model.BackendSlice{{Backends: many}},
		})
		e.SetService(&model.Service{
			Name: model.ServiceName{Namespace: "default", Name: "out"}, Type: model.TypeExternalName, ExternalName: "www.example.com",
		})
		e.SetComplete()
	})
}

func testTable(t testing.TB, s *model.Snapshot) *dns.Table {
	t.Helper()
	table, err := dns.NewTable(testZone)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Publish(context.Background(), s, nil); err != nil {
		t.Fatal(err)
	}
	return table
}

var discard = slog.New(slog.DiscardHandler)

// start runs a server on a free loopback port and returns its address.
func start(t testing.TB, cfg Config) string {
	t.Helper()
	_, at := startServer(t, cfg)
	return at
}

func startServer(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	s, at := startUnready(t, cfg)
	await(t, "the server to be ready", func() bool { ok, _ := s.Ready(); return ok })
	return s, at
}

// startUnready does not wait for the server.
func startUnready(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	pc, l := bothFree(t)
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	pc.Close()
	l.Close()
	cfg.Addrs, cfg.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, port
	cfg.Log = discard
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s, netip.AddrPortFrom(cfg.Addrs[0], port).String()
}

// bothFree listens over UDP and TCP on one loopback port. It is below those that the kernel gives to clients, so it
// stays free for a moment when these are closed.
func bothFree(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		at := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		pc, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", at); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free over both UDP and TCP")
	return nil, nil
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func exchange(t testing.TB, network, server string, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: 4096}
	r, _, err := c.Exchange(m, server)
	if err != nil {
		t.Fatalf("%s %v: %v", network, m.Question, err)
	}
	return r
}

func question(name string, qtype uint16) *mdns.Msg {
	return new(mdns.Msg).SetQuestion(name, qtype)
}

func TestAnswersOverUDPAndTCP(t *testing.T) {
	server := start(t, Config{Table: testTable(t, world())})
	for _, network := range []string{"udp", "tcp"} {
		r := exchange(t, network, server, question("WEB.default.svc.Cluster.Local.", mdns.TypeA))
		want := "WEB.default.svc.Cluster.Local.\t5\tIN\tA\t10.96.1.1"
		if len(r.Answer) != 1 || r.Answer[0].String() != want || !r.Authoritative {
			t.Errorf("over %s: got %v, want %s", network, r, want)
		}
	}
}

func TestASuccessorTakesOverWithoutALostQuestion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handover")
	predecessor := handover.New()
	var cfg Config
	pc, l := bothFree(t)
	cfg.Addrs, cfg.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, l.Addr().(*net.TCPAddr).AddrPort().Port()
	pc.Close()
	l.Close()
	cfg.Table, cfg.Log, cfg.Handover = testTable(t, world()), discard, predecessor
	run := func(set *handover.Set) (stop context.CancelFunc, ended chan error) {
		c := cfg
		c.Handover = set
		s, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		await(t, "a server to be ready", func() bool { ok, _ := s.Ready(); return ok })
		return cancel, ended
	}
	stopFirst, firstEnded := run(predecessor)
	served, release := context.WithCancel(t.Context())
	defer release()
	go predecessor.Serve(served, path, func() {}, func() {})
	await(t, "the predecessor to offer its sockets", func() bool { _, err := os.Stat(path); return err == nil })

	// Clients ask all the time; each question is sent once.
	stop, failed, asked := make(chan struct{}), make(chan string, 4), atomic.Int64{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := mdns.Client{Timeout: 20 * time.Second}
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if m, _, err := c.Exchange(web(), l.Addr().String()); err != nil || len(m.Answer) != 1 {
					failed <- fmt.Sprintf("got %v (%v)", m, err)
					return
				}
			}
		})
	}
	next, err := handover.Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Table, err = dns.NewTable(testZone); err != nil { // the successor's is empty for a moment
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		if err := cfg.Table.Publish(context.Background(), world(), nil); err != nil {
			t.Error(err)
		}
	})
	stopNext, nextEnded := run(next)
	before := asked.Load()
	await(t, "questions to both", func() bool { return asked.Load() > before+100 })
	if err := next.Ready(); err != nil {
		t.Error(err)
	}
	stopFirst()
	if err := <-firstEnded; err != nil {
		t.Errorf("the predecessor ended with %v", err)
	}
	before = asked.Load()
	await(t, "questions to the successor", func() bool { return asked.Load() > before+100 })
	close(stop)
	wg.Wait()
	stopNext()
	if err := <-nextEnded; err != nil {
		t.Errorf("the successor ended with %v", err)
	}
	select {
	case f := <-failed:
		t.Error(f)
	default:
	}
}

func TestHealthAndReadinessOverHTTP(t *testing.T) {
	table, err := dns.NewTable(testZone)
	if err != nil {
		t.Fatal(err)
	}
	var ports []uint16
	for range 3 {
		pc, l := bothFree(t)
		defer pc.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).AddrPort().Port())
		l.Close()
	}
	cfg := Config{Table: table, HTTP: HTTP{Health: ports[0], Ready: ports[1], Metrics: ports[2]}}
	get := func(port uint16, path string) (string, int) {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			return err.Error(), 0
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		return string(b), r.StatusCode
	}
	s, _ := startUnready(t, cfg)
	await(t, "/health", func() bool { _, code := get(ports[0], "/health"); return code == 200 })
	if text, code := get(ports[1], "/ready"); code != 503 || !strings.Contains(text, "first complete reading") {
		t.Errorf("/ready before the first snapshot: %d %s", code, text)
	}
	if err := table.Publish(context.Background(), world(), nil); err != nil {
		t.Fatal(err)
	}
	if text, code := get(ports[1], "/ready"); code != 200 {
		t.Errorf("/ready: %d %s", code, text)
	}
	if text, code := get(ports[2], "/metrics"); code != 200 || !strings.Contains(text, "coredns_build_info") {
		t.Errorf("/metrics: %d %s", code, text)
	}
	if ok, reason := s.Ready(); !ok {
		t.Error(reason)
	}
}
