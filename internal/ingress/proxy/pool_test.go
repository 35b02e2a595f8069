package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minato/internal/model"
)

func TestADeadBackendIsNotNoticed(t *testing.T) {
	w := start(t, nil)
	w.serve("x", nobody(t), backend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, b)
	}), nobody(t))
	c := w.client(false, nil)
	for i := range 50 {
		body := fmt.Sprint("body ", i)
		if got, want := do(t, c, "POST", "http://x/", strings.NewReader(body)), "200 POST "+body; got != want {
			t.Fatalf("request %d: %s", i, got)
		}
	}
}

func TestABackendThatCouldNotBeReachedIsAvoided(t *testing.T) {
	w := start(t, nil)
	w.serve("x", nobody(t), saying(t, "alive"))
	c := w.client(false, nil)
	for range 100 {
		do(t, c, "GET", "http://x/", nil)
	}
	if n := w.retries.Load(); n != 1 && n != 0 {
		t.Errorf("%d of 100 requests were sent there first", n)
	}
}

// breaking closes the connection after it has read a request, as often as n says, and counts the requests.
func breaking(t *testing.T, n int32) (addr string, requests *atomic.Int32) {
	requests = new(atomic.Int32)
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) > n {
			io.WriteString(w, "well")
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}), requests
}

func TestOnlyWhatIsSafeToRepeatIsSentTwice(t *testing.T) {
	for _, c := range []struct {
		method, body string
		repeated     bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"DELETE", "", true}, {"PUT", "x", false}, {"POST", "", false}, {"POST", "x", false}, {"PATCH", "", false},
	} {
		t.Run(c.method+c.body, func(t *testing.T) {
			w := start(t, nil)
			one, n1 := breaking(t, 1000)
			two, n2 := breaking(t, 1000)
			w.serve("x", one, two)
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			if got := do(t, w.client(false, nil), c.method, "http://x/", body); !strings.HasPrefix(got, "502 ") {
				t.Error(got)
			}
			want := int32(1)
			if c.repeated {
				want = 2
			}
			if n := n1.Load() + n2.Load(); n != want {
				t.Errorf("sent %d times, want %d", n, want)
			}
		})
	}
}

func TestTriesAreBounded(t *testing.T) {
	w := start(t, nil)
	var all []string
	var counts []*atomic.Int32
	for range 10 {
		addr, n := breaking(t, 1000)
		all, counts = append(all, addr), append(counts, n)
	}
	w.serve("x", all...)
	w.get("http://x/")
	total := int32(0)
	for _, n := range counts {
		if n.Load() > 1 {
			t.Error("one backend was asked twice")
		}
		total += n.Load()
	}
	if total != maxTries {
		t.Errorf("sent %d times", total)
	}
}

func TestRequestsUnderWayOutliveTheirBackend(t *testing.T) {
	w := start(t, nil)
	arrived, finish := make(chan struct{}), make(chan struct{})
	old := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "begin ")
		w.(http.Flusher).Flush()
		arrived <- struct{}{}
		<-finish
		io.WriteString(w, "end")
	})
	w.serve("x", old)
	result := make(chan string)
	go func() { result <- do(t, w.client(false, nil), "GET", "http://x/", nil) }()
	<-arrived
	svc := newService("x", old, saying(t, "new"))
	b := &svc.Slices[0].Backends[0]
	b.Ready, b.Terminating = false, true // serving: as a pod that is being deleted
	w.edit(func(e *model.Edit) { e.SetService(svc) })
	for range 20 {
		if got := w.get("http://x/"); got != "200 new" {
			t.Errorf("a new request: %s", got)
		}
	}
	close(finish)
	if got := <-result; got != "200 begin end" {
		t.Errorf("the request under way: %s", got)
	}
}

func TestTerminatingBackendsServeWhenThereIsNoOther(t *testing.T) {
	w := start(t, nil)
	old := saying(t, "last")
	w.serve("x", old)
	svc := newService("x", old)
	svc.Slices[0].Backends[0].Ready, svc.Slices[0].Backends[0].Terminating = false, true
	w.edit(func(e *model.Edit) { e.SetService(svc) })
	if got := w.get("http://x/"); got != "200 last" {
		t.Error(got)
	}
}

// connections counts the open ones of a backend.
func connections(t *testing.T) (addr string, open *atomic.Int32) {
	open = new(atomic.Int32)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), open
}

func TestConnectionsAreReusedAndEndWithTheirBackend(t *testing.T) {
	w := start(t, nil)
	addr, open := connections(t)
	i := w.serve("x", addr)
	for range 20 {
		w.get("http://x/")
	}
	if n := open.Load(); n != 1 {
		t.Errorf("%d connections after 20 requests, one after the other", n)
	}
	w.edit(func(e *model.Edit) { e.SetService(newService("x")) })
	eventually(t, "the idle connection to be closed", func() bool { return open.Load() == 0 })
	w.edit(func(e *model.Edit) { e.SetService(newService("x", addr)) })
	w.get("http://x/")
	w.edit(func(e *model.Edit) { e.DeleteIngress(i.Name) })
	eventually(t, "the idle connection to be closed with the route", func() bool { return open.Load() == 0 })
}

func TestTheLessBusyBackendIsPreferred(t *testing.T) {
	all := []*endpoint{{}, {}, {}}
	all[0].inFlight.Store(1)
	counts := map[*endpoint]int{}
	for range 3000 {
		counts[pick(all, nil, time.Now)]++
	}
	if n := counts[all[0]]; n > 0 {
		t.Errorf("the busy one was picked %d times", n)
	}
	if n := counts[all[1]]; n < 1300 || n > 1700 {
		t.Errorf("of two idle ones, one was picked %d times of 3000", n)
	}
}

func TestABackendUnderAvoidanceIsBetterThanNone(t *testing.T) {
	now := time.Now()
	avoided, tried := &endpoint{}, &endpoint{}
	avoided.avoid.Store(now.Add(time.Second).UnixNano())
	clock := func() time.Time { return now }
	if pick([]*endpoint{avoided, tried}, []*endpoint{tried}, clock) != avoided || pick([]*endpoint{avoided}, nil, clock) != avoided {
		t.Error("it is not picked")
	}
	if pick([]*endpoint{tried}, []*endpoint{tried}, clock) != nil || pick(nil, nil, clock) != nil {
		t.Error("one is picked where there is none")
	}
	for range 100 {
		if pick([]*endpoint{avoided, tried}, nil, clock) != tried {
			t.Error("it is picked although there is another")
		}
	}
}

// TestNoRequestFailsWhileBackendsChange is a rolling update in small: backends are taken out, and shut down then. What
// may be sent twice must survive that at once; for what must not, a process has to go on until what was on its way to
// it is answered, as kubelets see to with preStop hooks and the way of a signal.
func TestNoRequestFailsWhileBackendsChange(t *testing.T) {
	for method, goesOn := range map[string]bool{"GET": false, "POST": true} {
		t.Run(method, func(t *testing.T) {
			w := start(t, func(c *Config) { // what has failed, and why
				c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			w.serve("x", saying(t, "0"))
			ctx, cancel := context.WithCancel(t.Context())
			var requests sync.WaitGroup
			var clients answered
			for i := range clients {
				c := w.client(false, nil)
				requests.Go(func() {
					for ctx.Err() == nil {
						if got := do(t, c, method, "http://x/", body(method)); !strings.HasPrefix(got, "200 ") {
							t.Error(got)
						}
						clients[i].Add(1)
					}
				})
			}
			replaceBackends(t, w, &clients, goesOn)
			cancel()
			requests.Wait()
			t.Logf("%v requests", clients.now())
		})
	}
}

func body(method string) io.Reader {
	if method == "GET" {
		return nil
	}
	return strings.NewReader("body")
}

// answered counts the requests of each client, which sends one after the other.
type answered [4]atomic.Int32

func (a *answered) now() (n [len(answered{})]int32) {
	for i := range a {
		n[i] = a[i].Load()
	}
	return n
}

// more waits until each client has got n more answers. With the first one, nothing is under way that began before.
func (a *answered) more(t *testing.T, n int32) {
	t.Helper()
	before := a.now()
	eventually(t, "some answers to each client", func() bool {
		for i, now := range a.now() {
			if now < before[i]+n {
				return false
			}
		}
		return true
	})
}

func replaceBackends(t *testing.T, w *world, clients *answered, goesOn bool) {
	var old *httptest.Server
	for range 50 {
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		w.edit(func(e *model.Edit) { e.SetService(newService("x", s.Listener.Addr().String())) })
		if goesOn {
			clients.more(t, 1)
		}
		if old != nil {
			old.Config.Shutdown(t.Context())
			old.Close()
		}
		old = s
		clients.more(t, 2)
	}
	t.Cleanup(old.Close)
}

func TestARetiredEndpointTakesNoRequestAndEndsWithItsLast(t *testing.T) {
	addr, open := connections(t)
	w := start(t, nil)
	e := w.newEndpoint(netip.MustParseAddrPort(addr), "")
	for range 2 { // one is sent, the other stays under way
		if !e.begin() {
			t.Fatal("no request may begin")
		}
	}
	res, err := e.transport.RoundTrip(httptest.NewRequest("GET", "http://backend/", nil))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	e.end()
	e.retire()
	if e.begin() {
		t.Error("a request begins at a retired endpoint")
	}
	if n := open.Load(); n != 1 {
		t.Errorf("%d connections with a request under way, want 1", n)
	}
	e.end()
	eventually(t, "the connection to be closed", func() bool { return open.Load() == 0 })
}
