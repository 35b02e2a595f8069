package server

import (
	"bytes"
	"net"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

// respondTo gives b to a server without sockets and returns the reply, nil when there is none.
func respondTo(t testing.TB, b []byte) *mdns.Msg {
	t.Helper()
	s, err := New(Config{Table: testTable(t, world()), Addrs: testZone.Addrs, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	r := responder{s: s, count: s.newCounters("udp", false)}
	out := r.respond(nil, b, maxUDP)
	if len(out) == 0 {
		return nil
	}
	m := new(mdns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("the reply is not a message: %v", err)
	}
	return m
}

func pack(t testing.TB, m *mdns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// web is a question that has an answer, to be spoiled.
func web() *mdns.Msg { return question("web.default.svc.cluster.local.", mdns.TypeA) }

// The cases are those of RFC 8906 and of the DNS compliance test genreport.
func TestUnusualMessages(t *testing.T) {
	edit := func(f func(b []byte)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			b := pack(t, web())
			f(b)
			return b
		}
	}
	message := func(f func(m *mdns.Msg)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			m := web()
			f(m)
			return pack(t, m)
		}
	}
	opt := func(version uint8, options ...mdns.EDNS0) *mdns.OPT {
		o := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT, Class: 1400}, Option: options}
		o.SetVersion(version)
		return o
	}
	for _, c := range []struct {
		name  string
		query func(t *testing.T) []byte
		rcode int // -1: no reply
	}{
		{"an answer is not answered", edit(func(b []byte) { b[2] |= 0x80 }), -1},
		{"less than a header", func(*testing.T) []byte { return []byte("hello") }, -1},
		{"opcode STATUS", edit(func(b []byte) { b[2] |= 2 << 3 }), mdns.RcodeNotImplemented},
		{"opcode 15", edit(func(b []byte) { b[2] |= 15 << 3 }), mdns.RcodeNotImplemented},
		{"an update", func(t *testing.T) []byte { return pack(t, new(mdns.Msg).SetUpdate("cluster.local.")) }, mdns.RcodeNotImplemented},
		{"no question", edit(func(b []byte) { b[5] = 0 }), mdns.RcodeFormatError},
		{"two questions", message(func(m *mdns.Msg) { m.Question = append(m.Question, m.Question[0]) }), mdns.RcodeFormatError},
		{"a question cut short", func(t *testing.T) []byte { b := pack(t, web()); return b[:len(b)-3] }, mdns.RcodeFormatError},
		{"a pointer in the question", edit(func(b []byte) { b[12], b[13] = 0xC0, 12 }), mdns.RcodeFormatError},
		{"a record that is announced and not there", edit(func(b []byte) { b[11] = 1 }), mdns.RcodeFormatError},
		{"class CHAOS", message(func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassCHAOS }), mdns.RcodeRefused},
		{"class ANY", message(func(m *mdns.Msg) { m.Question[0].Qclass = mdns.ClassANY }), mdns.RcodeRefused},
		{"zone transfer", message(func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeAXFR }), mdns.RcodeRefused},
		{"incremental zone transfer", message(func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeIXFR }), mdns.RcodeRefused},
		{"EDNS", message(func(m *mdns.Msg) { m.Extra = append(m.Extra, opt(0)) }), 0},
		{"EDNS version 1", message(func(m *mdns.Msg) { m.Extra = append(m.Extra, opt(1)) }), mdns.RcodeBadVers},
		{"two OPT records", message(func(m *mdns.Msg) { m.Extra = append(m.Extra, opt(0), opt(0)) }), mdns.RcodeFormatError},
		{"an unknown option", message(func(m *mdns.Msg) { m.Extra = append(m.Extra, opt(0, &mdns.EDNS0_LOCAL{Code: 100, Data: []byte{1}})) }), 0},
		{"an unknown flag of EDNS", message(func(m *mdns.Msg) { o := opt(0); o.Hdr.Ttl |= 0x40; m.Extra = append(m.Extra, o) }), 0},
		{"a client's cookie", message(func(m *mdns.Msg) {
			m.Extra = append(m.Extra, opt(0, &mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0102030405060708"}))
		}), 0},
		{"all header flags", edit(func(b []byte) { b[2] |= 0x07; b[3] |= 0xF0 }), 0},
		{"bytes behind the message", func(t *testing.T) []byte { return append(pack(t, web()), "rubbish"...) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.query(t)
			m := respondTo(t, b)
			if m == nil || c.rcode < 0 {
				if m != nil || c.rcode >= 0 {
					t.Fatalf("got %v, want response code %d", m, c.rcode)
				}
				return
			}
			if m.Rcode != c.rcode || !m.Response || !bytes.Equal([]byte{byte(m.Id >> 8), byte(m.Id)}, b[:2]) {
				t.Errorf("got %v, want response code %s", m, mdns.RcodeToString[c.rcode])
			}
			if (len(m.Answer) == 1) != (c.rcode == 0) {
				t.Errorf("%d answers with response code %d", len(m.Answer), c.rcode)
			}
			if m.Zero || m.AuthenticatedData || m.Truncated {
				t.Errorf("flags that are not ours to set:\n%v", m)
			}
		})
	}
}

func TestOnlyAClientWithEDNSGetsIt(t *testing.T) {
	if m := respondTo(t, pack(t, web())); m.IsEdns0() != nil {
		t.Error("an OPT record that was not asked for")
	}
	q := web().SetEdns0(4096, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &mdns.EDNS0_LOCAL{Code: 100, Data: []byte{1}})
	o := respondTo(t, pack(t, q)).IsEdns0()
	if o == nil || o.UDPSize() != maxUDP || !o.Do() || o.Version() != 0 || len(o.Option) != 0 {
		t.Errorf("want an OPT record of %d bytes with DO and without options, got %v", maxUDP, o)
	}
}

func TestRepliesRespectTheSizeThatTheClientTakes(t *testing.T) {
	for _, c := range []struct{ edns, most int }{{0, 512}, {100, 512}, {800, 800}, {4096, maxUDP}} {
		q := question("many.default.svc.cluster.local.", mdns.TypeA)
		if c.edns > 0 {
			q.SetEdns0(uint16(c.edns), false)
		}
		m := respondTo(t, pack(t, q))
		m.Compress = true
		if m.Len() > c.most || m.Len() < c.most-32 || !m.Truncated {
			t.Errorf("EDNS size %d: %d bytes, truncated %t; want nearly %d and truncated", c.edns, m.Len(), m.Truncated, c.most)
		}
	}
}

func TestATruncatedAnswerIsWholeOverTCP(t *testing.T) {
	server := start(t, Config{Table: testTable(t, world())})
	m := exchange(t, "tcp", server, question("many.default.svc.cluster.local.", mdns.TypeA))
	if len(m.Answer) != 120 || m.Truncated {
		t.Errorf("%d answers, truncated %t; want 120, false", len(m.Answer), m.Truncated)
	}
}

func TestWithoutAForwarderOtherNamesAreRefused(t *testing.T) {
	m := respondTo(t, pack(t, question("www.example.com.", mdns.TypeA)))
	if m.Rcode != mdns.RcodeRefused || m.RecursionAvailable {
		t.Errorf("got %v", m)
	}
	if m := respondTo(t, pack(t, question("out.default.svc.cluster.local.", mdns.TypeA))); len(m.Answer) != 1 {
		t.Errorf("want the CNAME alone, got %v", m)
	}
}

func TestManyQuestionsInOneConnection(t *testing.T) {
	c, err := net.Dial("tcp", start(t, Config{Table: testTable(t, world())}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	var all []byte
	const n = 50
	for i := range n {
		q := web()
		q.Id = uint16(i)
		b := pack(t, q)
		all = append(append(all, byte(len(b)>>8), byte(len(b))), b...)
	}
	for len(all) > 0 { // torn in odd places
		k := min(len(all), 777)
		if _, err := c.Write(all[:k]); err != nil {
			t.Fatal(err)
		}
		all = all[k:]
	}
	dc := &mdns.Conn{Conn: c}
	for i := range n {
		m, err := dc.ReadMsg()
		if err != nil || int(m.Id) != i || len(m.Answer) != 1 {
			t.Fatalf("reply %d: %v, %v", i, m, err)
		}
	}
}

func TestOneClientCannotTakeAllConnections(t *testing.T) {
	server := start(t, Config{Table: testTable(t, world())})
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range tcpPerClient {
		c, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		b := pack(t, web())
		c.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
		if _, err := (&mdns.Conn{Conn: c}).ReadMsg(); err != nil {
			t.Fatalf("connection %d of %d was not served: %v", len(open), tcpPerClient, err)
		}
	}
	c, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("one connection more was kept")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("one connection more was left open")
	}
	open[0].Close()
	open = open[1:]
	await(t, "a place to come free", func() bool {
		client := mdns.Client{Net: "tcp", Timeout: time.Second}
		m, _, err := client.Exchange(web(), server)
		return err == nil && len(m.Answer) == 1
	})
}

func TestNoAllocationForOwnNames(t *testing.T) {
	s, err := New(Config{Table: testTable(t, world()), Addrs: testZone.Addrs, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	r := responder{s: s, count: s.newCounters("udp", false)}
	out := make([]byte, 0, maxUDP)
	for name, qtype := range map[string]uint16{
		"web.default.svc.cluster.local.": mdns.TypeA, "_http._tcp.web.default.svc.cluster.local.": mdns.TypeSRV,
		"www.example.com.default.svc.cluster.local.": mdns.TypeAAAA, "many.default.svc.cluster.local.": mdns.TypeA,
		"1.1.96.10.in-addr.arpa.": mdns.TypePTR, "10-244-1-1.default.pod.cluster.local.": mdns.TypeA,
	} {
		b := pack(t, question(name, qtype).SetEdns0(1232, false))
		if n := testing.AllocsPerRun(100, func() { out = r.respond(out, b, maxUDP) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzParse gives the same bytes to the parser and to another implementation. What ours takes the other takes too and
// reads alike, and every reply is a message with the question's id.
func FuzzParse(f *testing.F) {
	f.Add(pack(f, web()))
	f.Add(pack(f, web().SetEdns0(4096, true)))
	f.Add(pack(f, new(mdns.Msg).SetAxfr("cluster.local.")))
	f.Add(pack(f, new(mdns.Msg).SetUpdate("cluster.local.")))
	f.Add(pack(f, question("1.1.96.10.in-addr.arpa.", mdns.TypePTR)))
	f.Add(pack(f, question(`a\.b\000\255.x--1.default.pod.cluster.local.`, mdns.TypeANY)))
	s, err := New(Config{Table: testTable(f, world()), Addrs: testZone.Addrs, Log: discard})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q query
		if q.parse(b) && q.rcode == 0 {
			m := new(mdns.Msg)
			if err := m.Unpack(b[:q.end]); err != nil && m.Question == nil {
				t.Fatalf("the other refuses the question: %v", err)
			}
			other := m.Question[0]
			if other.Qtype != q.qtype || other.Qclass != q.class {
				t.Fatalf("type %d class %d, the other reads %d %d", q.qtype, q.class, other.Qtype, other.Qclass)
			}
			wire := make([]byte, 300)
			n, err := mdns.PackDomainName(mdns.CanonicalName(other.Name), wire, 0, nil, false)
			if err != nil || !bytes.Equal(wire[:n], q.name.Wire()) {
				t.Fatalf("name %q, the other reads %q (%v)", q.name.Wire(), wire[:n], err)
			}
		}
		r := responder{s: s, count: s.newCounters("udp", false)}
		for _, limit := range []int{maxUDP, maxTCP} {
			out := r.respond(nil, b, limit)
			if len(out) == 0 {
				continue
			}
			if len(out) > limit || !bytes.Equal(out[:2], b[:2]) {
				t.Fatalf("a reply of %d bytes with id %x", len(out), out[:2])
			}
			if err := new(mdns.Msg).Unpack(out); err != nil {
				t.Fatalf("the reply %x is not a message: %v", out, err)
			}
			if out[3]&15 == dns.RcodeServFail {
				t.Fatal("SERVFAIL from a complete table")
			}
		}
	})
}
