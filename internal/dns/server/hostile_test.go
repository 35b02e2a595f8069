package server

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func TestTheNextUpstreamIsAskedBeforeASlowOneGivesUp(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	slow := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) { <-release })
	server := forwarding(t, slow, upstreamServer(t, answering("192.0.2.2", 60)))
	wantA(t, exchange(t, "udp", server, question("www.example.com.", mdns.TypeA)), "192.0.2.2")
}

func TestAMuchSlowerUpstreamGoesBehindAFastOneAndIsTriedAgainLater(t *testing.T) {
	now := time.Now()
	us := &upstreams{}
	slow, fast := &upstream{addr: netip.MustParseAddrPort("192.0.2.1:53")}, &upstream{addr: netip.MustParseAddrPort("192.0.2.2:53")}
	us.list.Store(&[]*upstream{slow, fast})
	slow.took(200*time.Millisecond, now, false)
	fast.took(2*time.Millisecond, now, false)
	if got := us.order(now); got[0] != fast {
		t.Error("the slow one is asked first")
	}
	if got := us.order(now.Add(time.Minute)); got[0] != slow {
		t.Error("the one that was slow a minute ago is not tried again")
	}
	near := &upstream{addr: netip.MustParseAddrPort("192.0.2.3:53")}
	near.took(5*time.Millisecond, now, false)
	us.list.Store(&[]*upstream{near, fast})
	if got := us.order(now); got[0] != near {
		t.Error("a small difference changed the given order")
	}
}

func TestASlowerAnswerThatWasNotWaitedForMakesAnUpstreamSlower(t *testing.T) {
	now, u := time.Now(), &upstream{}
	u.took(10*time.Millisecond, now, false)
	u.took(5*time.Millisecond, now, true) // given up earlier than it usually answers: says nothing
	if u.usual(now) != 10*time.Millisecond {
		t.Errorf("usual time is %v", u.usual(now))
	}
	u.took(90*time.Millisecond, now, true)
	if u.usual(now) != 20*time.Millisecond {
		t.Errorf("usual time is %v, want 20ms", u.usual(now))
	}
}

// expired makes the cache's only answers ones whose time was over a moment ago.
func expired(s *Server) {
	for i := range s.cached.shards {
		sh := &s.cached.shards[i]
		sh.mu.Lock()
		for _, item := range sh.by {
			a := *item.a
			a.got = a.got.Add(-a.keep)
			item.a = &a
		}
		sh.mu.Unlock()
	}
}

func TestWhenNoUpstreamAnswersWhatWasKnownIsUsed(t *testing.T) {
	var down atomic.Bool
	good := answering("192.0.2.1", 60)
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		if down.Load() {
			rcode(mdns.RcodeServerFailure)(w, q)
			return
		}
		good(w, q)
	})
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	q := question("www.example.com.", mdns.TypeA)
	wantA(t, exchange(t, "udp", at, q), "192.0.2.1")
	down.Store(true)
	expired(s)
	for range 2 { // the second is answered without asking again
		r := exchange(t, "udp", at, q)
		wantA(t, r, "192.0.2.1")
		if len(r.Answer) == 1 && r.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("TTL %d, want %d", r.Answer[0].Header().Ttl, staleTTL)
		}
	}
	if n := u.asked.Load(); n != 2 {
		t.Errorf("the upstream was asked %d times, want 2", n)
	}
}

func TestAClientThatWaitsLongGetsWhatWasKnown(t *testing.T) {
	release, good := make(chan struct{}), answering("192.0.2.1", 60)
	var once atomic.Bool
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		if q.Question[0].Qtype == mdns.TypeA && once.Swap(true) { // not the probe for loops
			<-release
		}
		good(w, q)
	})
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	q := question("www.example.com.", mdns.TypeA)
	exchange(t, "udp", at, q)
	expired(s)
	r := exchange(t, "udp", at, q) // the upstream is silent until release
	close(release)
	wantA(t, r, "192.0.2.1")
}

func TestWhatIsAskedForOftenIsRenewedBeforeItsTimeIsOver(t *testing.T) {
	var c cache
	now := time.Now()
	c.put("k", &answer{got: now, keep: 100 * time.Second})
	for at, want := range map[time.Duration]bool{10 * time.Second: false, 80 * time.Second: false} {
		if _, renew := c.get([]byte("k"), now.Add(at)); renew != want {
			t.Errorf("after %v renew is %t", at, renew)
		}
	}
	if _, renew := c.get([]byte("k"), now.Add(95*time.Second)); !renew {
		t.Error("not renewed shortly before its end")
	}
	if _, renew := c.get([]byte("k"), now.Add(96*time.Second)); renew {
		t.Error("renewed twice")
	}
}

func TestARenewalAsksTheUpstreamOnce(t *testing.T) {
	u := upstreamServer(t, answering("192.0.2.1", 60))
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	q := question("www.example.com.", mdns.TypeA)
	exchange(t, "udp", at, q)
	for i := range s.cached.shards { // nearly over
		sh := &s.cached.shards[i]
		sh.mu.Lock()
		for _, item := range sh.by {
			a := *item.a
			a.got = a.got.Add(-a.keep + a.keep/20)
			item.a = &a
		}
		sh.mu.Unlock()
	}
	for range 3 {
		wantA(t, exchange(t, "udp", at, q), "192.0.2.1")
	}
	await(t, "the renewal", func() bool { return u.asked.Load() == 2 })
	if n := s.forward.Load().renewed.Load(); n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

func TestTheCacheIsBoundedInBytesAndForgetsWhatIsNotUsed(t *testing.T) {
	var c cache
	now := time.Now()
	big := func() *answer { return &answer{got: now, keep: time.Hour, body: make([]byte, 4096)} }
	c.put("used", big())
	for i := range 20_000 {
		c.put(fmt.Sprint("other", i), big())
		if a, _ := c.get([]byte("used"), now); a == nil {
			t.Fatalf("forgotten after %d others, though it was always used", i)
		}
	}
	bytes := 0
	for i := range c.shards {
		bytes += c.shards[i].bytes
	}
	if bytes > cacheBytes || bytes < cacheBytes/2 {
		t.Errorf("%d bytes are kept, want at most %d and not much less", bytes, cacheBytes)
	}
}

func TestOneClientLeavesRoomForOthers(t *testing.T) {
	release := make(chan struct{})
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) { <-release; answering("192.0.2.1", 60)(w, q) })
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	greedy, err := mdns.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	for i := range maxPerClient + 1 { // in parts: the socket's buffer has an end
		if err := greedy.WriteMsg(question(fmt.Sprintf("n%d.example.com.", i), mdns.TypeA)); err != nil {
			t.Fatal(err)
		}
		await(t, "the question to wait or to be refused", func() bool {
			f := s.forward.Load()
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.waiters == min(i+1, maxPerClient)
		})
	}
	if m, err := greedy.ReadMsg(); err != nil || m.Rcode != mdns.RcodeServerFailure {
		t.Errorf("the question that was too many got %v (%v), want SERVFAIL", m, err)
	}
	close(release)
}

// The limit of a Corefile is of one forward: the names of another zone, and what is under way already, are not refused.
func TestMoreQuestionsThanMaxConcurrentAreRefused(t *testing.T) {
	release := make(chan struct{})
	slow := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) { <-release; answering("192.0.2.1", 60)(w, q) })
	other := upstreamServer(t, answering("192.0.2.2", 60))
	s, at := configured(t, Settings{Forward: []Forward{
		{Zone: ".", Upstreams: []netip.AddrPort{slow.addr}, MaxConcurrent: 2}, {Zone: "corp.example", Upstreams: []netip.AddrPort{other.addr}},
	}})
	var wg sync.WaitGroup
	ask := func(name string) {
		wg.Go(func() { wantA(t, exchange(t, "udp", at, question(name, mdns.TypeA)), "192.0.2.1") })
	}
	ask("a.example.com.")
	ask("b.example.com.")
	waiting := func(n int) func() bool {
		return func() bool {
			f := s.forward.Load()
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.waiters == n
		}
	}
	await(t, "both to wait", waiting(2))
	for range 3 {
		if m := exchange(t, "udp", at, question("c.example.com.", mdns.TypeA)); m.Rcode != mdns.RcodeRefused {
			t.Errorf("the third question got %s, want REFUSED", mdns.RcodeToString[m.Rcode])
		}
	}
	wantA(t, exchange(t, "udp", at, question("www.corp.example.", mdns.TypeA)), "192.0.2.2")
	ask("A.example.com.")
	await(t, "the equal question to wait too", waiting(3))
	close(release)
	wg.Wait()
	wantA(t, exchange(t, "udp", at, question("c.example.com.", mdns.TypeA)), "192.0.2.1")
	if n := s.forward.Load().shed.Load(); n != 3 {
		t.Errorf("%d questions are counted, want 3", n)
	}
}

// A forger who makes one name be asked many times at once would have as many ids to guess among (CVE-2023-30464).
func TestABirthdayAttackFindsOneQuestionOnly(t *testing.T) {
	release := make(chan struct{})
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) { <-release; answering("192.0.2.1", 60)(w, q) })
	s, at := startServer(t, Config{Table: testTable(t, world()), Upstreams: []netip.AddrPort{u.addr}})
	var wg sync.WaitGroup
	const clients = 100
	for i := range clients {
		wg.Go(func() {
			name := "www.example.com."
			if i%2 == 0 {
				name = "WWW.Example.COM."
			}
			wantA(t, exchange(t, "udp", at, question(name, mdns.TypeA)), "192.0.2.1")
		})
	}
	await(t, "all to wait", func() bool {
		f := s.forward.Load()
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.waiters == clients
	})
	asked := u.asked.Load()
	close(release)
	wg.Wait()
	if asked > 3 { // one, and perhaps another attempt when this machine is slow
		t.Errorf("the upstream was asked %d times at once", asked)
	}
}

func TestQuestionsToUpstreamsHaveRandomIDsAndPorts(t *testing.T) {
	var mu sync.Mutex
	ids, ports := map[uint16]bool{}, map[string]bool{}
	u := upstreamServer(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		mu.Lock()
		ids[q.Id], ports[w.RemoteAddr().String()] = true, true
		mu.Unlock()
		answering("192.0.2.1", 60)(w, q)
	})
	server := forwarding(t, u)
	for i := range 50 {
		q := question(fmt.Sprintf("n%d.example.com.", i), mdns.TypeA)
		q.Id = 7
		exchange(t, "udp", server, q)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 45 || len(ports) < 45 {
		t.Errorf("50 questions had %d ids and %d ports", len(ids), len(ports))
	}
}
