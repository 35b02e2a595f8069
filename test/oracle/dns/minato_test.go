package oracle

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
	"minato/internal/dns/server"
	"minato/internal/model"
	"minato/internal/source"
)

var zone = dns.Zone{
	Domain: "cluster.local",
	Reverse: []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16"),
		netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("1234:abcd::/64"), netip.MustParsePrefix("fd00:77:30::/64"),
		netip.MustParsePrefix("fd00:10::/32"), netip.MustParsePrefix("fd00:20::/32"),
	},
	Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
}

// minato is the whole server on a loopback port, told of worlds as it would be of API objects.
type minato struct {
	builder *source.Builder
	table   *dns.Table
	at      string
	conns   map[string]*mdns.Conn
}

func newMinato(t *testing.T, options dns.Options) *minato {
	return newMinatoAsking(t, options, outside)
}

// newMinatoAsking has the answers for other names from the function.
func newMinatoAsking(t *testing.T, options dns.Options, upstream func(*mdns.Msg) *mdns.Msg) *minato {
	t.Helper()
	z := zone
	z.Options = options
	table, err := dns.NewTable(z)
	if err != nil {
		t.Fatal(err)
	}
	m := &minato{builder: source.NewBuilder(), table: table, conns: map[string]*mdns.Conn{}}
	port := uint16(20_000 + rand.IntN(10_000))
	m.at = fmt.Sprintf("127.0.0.1:%d", port)
	s, err := server.New(server.Config{
		Addrs: zone.Addrs, Port: port, Table: table, Log: slog.New(slog.DiscardHandler), Upstreams: []netip.AddrPort{startOutside(t, upstream)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		for _, c := range m.conns {
			c.Close()
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return m
}

// startOutside runs the upstream of our server.
func startOutside(t *testing.T, answer func(*mdns.Msg) *mdns.Msg) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) { w.WriteMsg(answer(q)) })}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

// become makes the world the server's.
func (m *minato) become(t *testing.T, w *world) {
	t.Helper()
	m.builder.Update(func(b *source.Batch) {
		var services []*source.ServiceObject
		for _, s := range w.services {
			services = append(services, source.Service(s))
		}
		var slices []*source.SliceObject
		for _, s := range w.slices {
			if o, ok := source.Slice(s); ok {
				slices = append(slices, o)
			}
		}
		b.ReplaceServices(services)
		b.ReplaceSlices(slices)
		b.ReplaceNamespaces(w.namespaces)
		b.ReplaceNodes([]*model.Node{})
	})
	next := m.builder.Current()
	for _, phase := range []func() error{
		func() error { return m.table.Withdraw(context.Background(), next) },
		func() error { return m.table.Publish(context.Background(), next, nil) },
	} {
		if err := phase(); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *minato) ask(t *testing.T, q *mdns.Msg, tcp bool) *mdns.Msg {
	t.Helper()
	network := "udp"
	if tcp {
		network = "tcp"
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		r, err := m.exchange(network, q)
		if err == nil {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %v: %v", network, q.Question, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *minato) exchange(network string, q *mdns.Msg) (*mdns.Msg, error) {
	c := m.conns[network]
	if c == nil {
		var err error
		if c, err = mdns.Dial(network, m.at); err != nil {
			return nil, err
		}
		c.UDPSize = mdns.MaxMsgSize
		m.conns[network] = c
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := c.WriteMsg(q); err != nil {
		c.Close()
		delete(m.conns, network)
		return nil, err
	}
	for {
		r, err := c.ReadMsg()
		if err != nil {
			c.Close()
			delete(m.conns, network)
			return nil, err
		}
		if r.Id == q.Id {
			return r, nil
		}
	}
}
