package server

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
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
	await(t, "the server to be ready", func() bool { ok, _ := s.Ready(); return ok })
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
