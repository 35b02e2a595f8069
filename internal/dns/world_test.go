package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"minato/internal/model"
)

var testZone = Zone{
	Domain: "cluster.local",
	Reverse: []netip.Prefix{
		netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10::/108"),
	},
	Addrs:   []netip.Addr{netip.MustParseAddr("10.96.0.10")},
	Service: model.ServiceName{Namespace: "kube-system", Name: "kube-dns"},
}

func serviceName(s string) model.ServiceName {
	ns, name, _ := strings.Cut(s, "/")
	return model.ServiceName{Namespace: ns, Name: name}
}

// service makes a Service from "namespace/name", its ClusterIPs ("None": headless) and ports such as "http/tcp/80".
func service(name, clusterIPs string, ports []string, backends ...model.Backend) *model.Service {
	s := &model.Service{Name: serviceName(name), Headless: clusterIPs == "None", Proxied: clusterIPs != "None"}
	if !s.Headless {
		for _, a := range strings.Fields(clusterIPs) {
			s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(a))
		}
	}
	for _, p := range ports {
		port, protocol, number := portOf(p)
		s.Ports = append(s.Ports, model.Port{Name: port, Protocol: protocol, Port: number})
	}
	s.Slices = []*model.BackendSlice{{Name: "slice", Backends: backends}}
	return s
}

func portOf(s string) (name string, p model.Protocol, number uint16) {
	f := strings.Split(s, "/")
	fmt.Sscan(f[2], &number)
	return f[0], map[string]model.Protocol{"tcp": model.TCP, "udp": model.UDP, "sctp": model.SCTP}[f[1]], number
}

// ready makes a backend from "address" and a port such as "http/tcp/8080"; "" for none.
func ready(addr, port string) model.Backend {
	b := model.Backend{Ready: true, Serving: true, Protocol: model.TCP}
	number := uint16(0)
	if port != "" {
		b.PortName, b.Protocol, number = portOf(port)
	}
	b.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), number)
	return b
}

func unready(addr, port string) model.Backend {
	b := ready(addr, port)
	b.Ready = false
	return b
}

func called(hostname string, b model.Backend) model.Backend {
	b.Hostname = hostname
	return b
}

func external(name, target string) *model.Service {
	return &model.Service{Name: serviceName(name), Type: model.TypeExternalName, ExternalName: target}
}

// with is the next complete snapshot, in which the Services stand in the place of those of their names.
func with(s *model.Snapshot, services ...*model.Service) *model.Snapshot {
	return s.With(func(e *model.Edit) {
		for _, svc := range services {
			e.SetService(svc)
			e.SetNamespace(svc.Name.Namespace, true)
		}
		e.SetComplete()
	})
}

func without(s *model.Snapshot, names ...string) *model.Snapshot {
	return s.With(func(e *model.Edit) {
		for _, n := range names {
			e.DeleteService(serviceName(n))
		}
	})
}

func newTable(t testing.TB) *Table {
	t.Helper()
	table, err := NewTable(testZone)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func tableOf(t testing.TB, s *model.Snapshot) *Table {
	t.Helper()
	table := newTable(t)
	if err := table.Publish(context.Background(), s, nil); err != nil {
		t.Fatal(err)
	}
	return table
}

// ask sends a question through the wire form and returns the answer read by another implementation.
func ask(t testing.TB, v View, name string, qtype uint16, limit int, turn uint32) (*mdns.Msg, Answer) {
	t.Helper()
	wire, err := new(mdns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		t.Fatal(err)
	}
	var n Name
	if length, ok := n.Parse(wire[headerLen:]); !ok || length != len(wire)-headerLen-4 {
		t.Fatalf("%q was not read back", name)
	}
	wire, a := v.Append(wire, &n, qtype, limit, turn)
	for i, c := range []uint16{a.Answers, a.Authority, a.Extra} {
		binary.BigEndian.PutUint16(wire[6+2*i:], c)
	}
	wire[2] |= 0x80
	wire[3] |= a.Rcode
	m := new(mdns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("%s %s: the answer is not a message: %v", name, mdns.TypeToString[qtype], err)
	}
	if m.Len(); len(wire) > limit {
		t.Errorf("%s: %d bytes, over the limit of %d", name, len(wire), limit)
	}
	return m, a
}

// brief is an answer in one line per record, without classes: "NXDOMAIN", "NODATA of ZONE", or the records. Glue is
// marked with a plus.
func brief(m *mdns.Msg, a Answer) string {
	switch {
	case a.Foreign:
		return "FOREIGN"
	case m.Rcode == mdns.RcodeServerFailure:
		return "SERVFAIL"
	}
	var out []string
	add := func(mark string, rrs []mdns.RR) {
		for _, rr := range rrs {
			f := strings.Fields(rr.String())
			out = append(out, mark+strings.Join(slices.Delete(f, 2, 3), " "))
		}
	}
	add("", m.Answer)
	add("+ ", m.Extra)
	if a.Chase != "" {
		out = append(out, "chase "+text(a.Chase))
	}
	if len(out) > 0 {
		return strings.Join(out, "\n")
	}
	zone := "nothing"
	if len(m.Ns) == 1 && m.Ns[0].Header().Rrtype == mdns.TypeSOA {
		zone = m.Ns[0].Header().Name
	}
	if m.Rcode == mdns.RcodeNameError {
		return "NXDOMAIN of " + zone
	}
	return "NODATA of " + zone
}
