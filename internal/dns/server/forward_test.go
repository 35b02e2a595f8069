package server

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// resolver is an upstream on loopback that answers as it is told, and counts.
type resolver struct {
	addr  netip.AddrPort
	asked atomic.Int32
}

// upstreamServer starts a resolver over UDP and TCP on one port.
func upstreamServer(t testing.TB, handle func(w mdns.ResponseWriter, q *mdns.Msg)) *resolver {
	t.Helper()
	pc, l := bothFree(t)
	r := &resolver{addr: pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	counted := mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		if q.Question[0].Qtype != mdns.TypeHINFO { // a probe for loops
			r.asked.Add(1)
		}
		handle(w, q)
	})
	for _, s := range []*mdns.Server{{PacketConn: pc, Handler: counted}, {Listener: l, Handler: counted}} {
		serve(t, s)
	}
	return r
}

// serve runs s until the test ends. It returns when s has started: a Shutdown before that is an error, and s would then serve for ever.
func serve(t testing.TB, s *mdns.Server) {
	t.Helper()
	started, done := make(chan bool), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	go func() { done <- s.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-done:
		t.Fatalf("the upstream does not start: %v", err)
	}
	t.Cleanup(func() { s.Shutdown(); <-done })
}

// answering replies with one A record.
func answering(addr string, ttl int) func(mdns.ResponseWriter, *mdns.Msg) {
	return func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		if q.Question[0].Qtype == mdns.TypeA {
			rr, err := mdns.NewRR(fmt.Sprintf("%s %d IN A %s", q.Question[0].Name, ttl, addr))
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}
}

func rcode(code int) func(mdns.ResponseWriter, *mdns.Msg) {
	return func(w mdns.ResponseWriter, q *mdns.Msg) { w.WriteMsg(new(mdns.Msg).SetRcode(q, code)) }
}

func silent(mdns.ResponseWriter, *mdns.Msg) {}

func forwarding(t testing.TB, us ...*resolver) string {
	t.Helper()
	cfg := Config{Table: testTable(t, world())}
	for _, u := range us {
		cfg.Upstreams = append(cfg.Upstreams, u.addr)
	}
	return start(t, cfg)
}

func wantA(t testing.TB, r *mdns.Msg, addr string) {
	t.Helper()
	if len(r.Answer) == 1 {
		if a, ok := r.Answer[0].(*mdns.A); ok && a.A.String() == addr {
			return
		}
	}
	t.Errorf("want an A record %s, got:\n%v", addr, r)
}

func TestForwardsOtherNamesAndKeepsTheirSpelling(t *testing.T) {
	server := forwarding(t, upstreamServer(t, answering("192.0.2.1", 60)))
	for _, network := range []string{"udp", "tcp"} {
		r := exchange(t, network, server, question("WWW.Example.com.", mdns.TypeA))
		wantA(t, r, "192.0.2.1")
		if r.Authoritative || !r.RecursionAvailable || r.Answer[0].Header().Name != "WWW.Example.com." {
			t.Errorf("over %s: want a reply that is not authoritative, for the name as it was asked, got:\n%v", network, r)
		}
	}
}

func TestOwnNamesAreNeverForwarded(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	server := forwarding(t, u)
	for _, name := range []string{"nosuch.default.svc.cluster.local.", "nosuch.cluster.local.", "9.9.100.10.in-addr.arpa.", "9.9.244.10.in-addr.arpa."} {
		if r := exchange(t, "udp", server, question(name, mdns.TypePTR)); r.Rcode != mdns.RcodeNameError || !r.Authoritative {
			t.Errorf("%s: want our own NXDOMAIN, got:\n%v", name, r)
		}
	}
	if n := u.asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times, want never", n)
	}
}

func TestReverseNamesOutsideOurRangesAreForwarded(t *testing.T) {
	u := upstreamServer(t, rcode(mdns.RcodeNameError))
	exchange(t, "udp", forwarding(t, u), question("1.2.0.192.in-addr.arpa.", mdns.TypePTR))
	if u.asked.Load() != 1 {
		t.Error("the upstream was not asked")
	}
}

func TestEqualQuestionsAtTheSameTimeAreAskedOnce(t *testing.T) {
	release := make(chan bool)
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		if q.Question[0].Qtype == mdns.TypeA {
			<-release
		}
		answering("192.0.2.1", 0)(w, q) // TTL 0: the cache has no part in it
	})
	server := forwarding(t, u)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { wantA(t, exchange(t, "udp", server, question("slow.example.com.", mdns.TypeA)), "192.0.2.1") })
	}
	await(t, "the upstream to be asked", func() bool { return u.asked.Load() > 0 })
	time.AfterFunc(200*time.Millisecond, func() { close(release) })
	wg.Wait()
	if n := u.asked.Load(); n > 2 { // one that came after the release may be a second
		t.Errorf("the upstream was asked %d times for 20 equal questions", n)
	}
}

func TestAnswersAreKeptForTheirTTL(t *testing.T) {
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		ttl := 0
		if q.Question[0].Name == "kept.example.com." {
			ttl = 60
		}
		answering("192.0.2.1", ttl)(w, q)
	})
	server := forwarding(t, u)
	for name, want := range map[string]int32{"kept.example.com.": 1, "fleeting.example.com.": 3} {
		u.asked.Store(0)
		for range 3 {
			wantA(t, exchange(t, "udp", server, question(name, mdns.TypeA)), "192.0.2.1")
		}
		if n := u.asked.Load(); n != want {
			t.Errorf("%s: the upstream was asked %d times for 3 questions, want %d", name, n, want)
		}
	}
}

func TestForgedAndStrayAnswersArePassedOver(t *testing.T) {
	forge := map[string]func(m *mdns.Msg){
		"another id":       func(m *mdns.Msg) { m.Id++ },
		"another question": func(m *mdns.Msg) { m.Question[0].Name = "other.example.com." },
		"another type":     func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeMX },
		"a question":       func(m *mdns.Msg) { m.Response = false },
	}
	for name, change := range forge {
		t.Run(name, func(t *testing.T) {
			u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
				m := new(mdns.Msg).SetReply(q)
				rr, _ := mdns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.66")
				m.Answer = append(m.Answer, rr)
				m.Question = []mdns.Question{q.Question[0]}
				change(m)
				w.WriteMsg(m)
				w.Write([]byte("rubbish"))
				answering("192.0.2.1", 60)(w, q)
			})
			wantA(t, exchange(t, "udp", forwarding(t, u), question("www.example.com.", mdns.TypeA)), "192.0.2.1")
		})
	}
}

func TestTruncatedAnswersAreAskedForOverTCP(t *testing.T) {
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		if w.RemoteAddr().Network() == "udp" {
			m := new(mdns.Msg).SetReply(q)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		answering("192.0.2.1", 60)(w, q)
	})
	wantA(t, exchange(t, "udp", forwarding(t, u), question("www.example.com.", mdns.TypeA)), "192.0.2.1")
}

func TestTheNextUpstreamAnswersForOneThatDoesNot(t *testing.T) {
	dead := &resolver{addr: netip.MustParseAddrPort("127.0.0.1:1")} // nothing listens there
	for name, bad := range map[string]*resolver{
		"dead": dead, "silent": upstreamServer(t, silent),
		"SERVFAIL": upstreamServer(t, rcode(mdns.RcodeServerFailure)), "REFUSED": upstreamServer(t, rcode(mdns.RcodeRefused)),
	} {
		t.Run(name, func(t *testing.T) {
			good := upstreamServer(t, answering("192.0.2.1", 60))
			wantA(t, exchange(t, "udp", forwarding(t, bad, good), question("www.example.com.", mdns.TypeA)), "192.0.2.1")
		})
	}
}

func TestAnUpstreamThatFailsIsNotAskedFirstAgain(t *testing.T) {
	bad, good := upstreamServer(t, silent), upstreamServer(t, answering("192.0.2.1", 0))
	server := forwarding(t, bad, good)
	for i := range downAfter + 5 {
		wantA(t, exchange(t, "udp", server, question(fmt.Sprintf("n%d.example.com.", i), mdns.TypeA)), "192.0.2.1")
	}
	if n := bad.asked.Load(); n < 1 || n > downAfter {
		t.Errorf("the silent upstream was asked %d times, want at most %d", n, downAfter)
	}
}

func TestWithoutAnAnswerTheClientIsToldSERVFAIL(t *testing.T) {
	for name, u := range map[string]*resolver{
		"dead": {addr: netip.MustParseAddrPort("127.0.0.1:1")}, "silent": upstreamServer(t, silent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			r := exchange(t, "udp", forwarding(t, u), question("www.example.com.", mdns.TypeA))
			if r.Rcode != mdns.RcodeServerFailure || time.Since(begin) > budget+time.Second {
				t.Errorf("after %s: %v", time.Since(begin), r)
			}
		})
	}
}

func TestASlowUpstreamDoesNotHoldUpOwnNames(t *testing.T) {
	server := forwarding(t, upstreamServer(t, silent))
	conn, err := mdns.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	slow, fast := question("www.example.com.", mdns.TypeA), question("web.default.svc.cluster.local.", mdns.TypeA)
	for _, q := range []*mdns.Msg{slow, fast} { // pipelined
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	r, err := conn.ReadMsg()
	if err != nil || r.Id != fast.Id || time.Since(begin) > time.Second {
		t.Errorf("after %s: got %v, %v; want the answer for our own name first", time.Since(begin), r, err)
	}
}

func TestAnUpstreamThatIsOurselvesIsFound(t *testing.T) {
	// The relay stands for a stub resolver of the host that is configured with our address.
	var to atomic.Pointer[string]
	relay := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		c := mdns.Client{Timeout: 3 * time.Second}
		if r, _, err := c.Exchange(q, *to.Load()); err == nil {
			w.WriteMsg(r)
		}
	})
	server := forwarding(t, relay)
	to.Store(&server)
	await(t, "the loop to be found", func() bool {
		begin := time.Now()
		r := exchange(t, "udp", server, question(fmt.Sprintf("n%d.example.com.", begin.UnixNano()), mdns.TypeA))
		return r.Rcode == mdns.RcodeServerFailure && time.Since(begin) < time.Second
	})
}

func TestResolvConfIsFollowed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	us := newUpstreams(Config{Log: discard}, []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")}, Forward{Zone: ".", ResolvConf: file}, keeping{})
	steps := []struct{ contents, want string }{
		{"nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n", "[127.0.0.53:53]"},
		{"nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", "[192.0.2.1:53 [fe80::1%eth0]:53]"},
		{"nameserver 10.96.0.10\nnameserver 192.0.2.2\n", "[192.0.2.2:53]"},
		{"# none\n", "[]"},
	}
	for _, s := range steps {
		if err := os.WriteFile(file, []byte(s.contents), 0o644); err != nil {
			t.Fatal(err)
		}
		us.load()
		var got []netip.AddrPort
		for _, u := range *us.list.Load() {
			got = append(got, u.addr)
		}
		if fmt.Sprint(got) != s.want {
			t.Errorf("after %q: %v, want %s", s.contents, got, s.want)
		}
	}
	before := us.list.Load()
	os.Remove(file)
	if us.load(); us.list.Load() != before {
		t.Error("a file that is gone for a moment changed the list")
	}
}

func TestExternalNamesAreChased(t *testing.T) {
	server := forwarding(t, upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		for _, s := range []string{"www.example.com. 60 IN CNAME cdn.example.net.", "cdn.example.net. 60 IN A 192.0.2.7"} {
			rr, _ := mdns.NewRR(s)
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	}))
	for range 2 { // from the upstream, then from the cache
		r := exchange(t, "udp", server, question("OUT.default.svc.cluster.local.", mdns.TypeA))
		want := "OUT.default.svc.cluster.local.\t5\tIN\tCNAME\twww.example.com. www.example.com.\t60\tIN\tCNAME\tcdn.example.net. cdn.example.net.\t60\tIN\tA\t192.0.2.7"
		var got string
		for i, rr := range r.Answer {
			if i > 0 {
				got += " "
			}
			got += rr.String()
		}
		if got != want || !r.Authoritative || r.Rcode != 0 {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

func TestAnExternalNameWhoseTargetCannotBeLookedUpIsEmpty(t *testing.T) {
	server := forwarding(t, upstreamServer(t, rcode(mdns.RcodeServerFailure)))
	r := exchange(t, "udp", server, question("out.default.svc.cluster.local.", mdns.TypeA))
	if r.Rcode != mdns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 {
		t.Errorf("want NODATA, got:\n%v", r)
	}
}
