//go:build linux

package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/apply"
	"minato/internal/health/server"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/internal/status"
)

const (
	addr4 = "172.30.0.11"
	addr6 = "fd00:30::11"
)

// world is a node with a health server that a Loop takes to the snapshots of a test.
type world struct {
	t       *testing.T
	node    netns.NS
	source  *source
	board   *status.Board
	kernel  *programmer
	timeout time.Duration
	failed  chan string
}

func newWorld(t *testing.T, timeout time.Duration) *world {
	w := &world{t: t, node: netnstest.Namespace(t, "node"), board: new(status.Board), kernel: &programmer{make(chan error, 1)}, timeout: timeout, failed: make(chan string, 100),
		source: &source{changed: make(chan struct{}, 1), now: make(chan *model.Snapshot, 1)}}
	netnstest.Run(t, w.node, "ip", "address", "add", addr4+"/24", "dev", "lo")
	netnstest.Run(t, w.node, "ip", "address", "add", addr6+"/64", "dev", "lo", "nodad")
	netnstest.Settle(t, w.node)
	w.source.now <- model.Empty()
	node := model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr(addr4), netip.MustParseAddr(addr6)}}
	log := slog.New(slog.DiscardHandler)
	progress := new(apply.Progress)
	s := server.New(server.Config{Netns: w.node, Addrs: node.Addrs, Progress: progress, Log: log, Timeout: timeout,
		Figures: []prometheus.Collector{prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "figures"}, func() float64 { return 7 })},
		Failed: func(service model.ServiceName, port uint16, err error) {
			select {
			case w.failed <- fmt.Sprintf("%s %d %t", service, port, errors.Is(err, syscall.EADDRINUSE)):
			default:
			}
		}})
	loop := apply.New(apply.Config{Source: w.source, Node: node, Board: w.board, Log: log, Progress: progress,
		Programmers: []apply.Programmer{w.kernel}, Publishers: []apply.Publisher{s}, RetryMax: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// source has the newest snapshot in a channel of one.
type source struct {
	changed chan struct{}
	now     chan *model.Snapshot
}

func (s *source) Current() *model.Snapshot {
	snap := <-s.now
	s.now <- snap
	return snap
}

func (s *source) Subscribe() (<-chan struct{}, func()) { return s.changed, func() {} }

// update publishes the next snapshot and waits until the node has tried it.
func (w *world) update(edit func(*model.Edit)) {
	w.t.Helper()
	next := (<-w.source.now).With(func(e *model.Edit) { e.SetComplete(); edit(e) })
	w.source.now <- next
	w.source.changed <- struct{}{}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.board.Wait(ctx, func(entries []status.Entry) bool {
		for _, e := range entries {
			if e.Component == "health" && e.Seen == next.Revision {
				return true
			}
		}
		return false
	}); err != nil {
		w.t.Fatal("the snapshot was not applied")
	}
}

// programmer is a dataplane that can fail.
type programmer struct{ err chan error }

func (*programmer) Name() string { return "dataplane" }

func (p *programmer) Program(context.Context, *model.Snapshot) (map[model.ServiceName]error, error) {
	select {
	case err := <-p.err:
		p.err <- err
		return nil, err
	default:
		return nil, nil
	}
}

func (*programmer) Reap(context.Context, *model.Snapshot) error { return nil }

type response struct {
	status       int
	weight, body string
	header       http.Header
}

func (r response) String() string { return fmt.Sprintf("%d weight %q", r.status, r.weight) }

func (w *world) get(at, path string) (response, error) {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return w.node.DialContext(ctx, network, address)
		}}}
	resp, err := c.Get("http://" + at + path)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), string(body), resp.Header}, err
}

func (w *world) expect(at, path, want string) response {
	w.t.Helper()
	r, err := w.get(at, path)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.String() != want {
		w.t.Errorf("%s%s: got %s, want %s\n%s", at, path, r, want, r.body)
	}
	return r
}

func balanced(name string, port uint16, local ...string) *model.Service {
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: name}, Type: model.TypeLoadBalancer, Proxied: true,
		ExternalTrafficPolicy: model.Local, HealthCheckNodePort: port,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")},
		Ports:      []model.Port{{Protocol: model.TCP, Port: 80}}}
	sl := &model.BackendSlice{Name: name}
	for _, a := range local {
		sl.Backends = append(sl.Backends, model.Backend{Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 8080), Protocol: model.TCP,
			NodeName: "node1", Ready: true, Serving: true})
	}
	s.Slices = []*model.BackendSlice{sl}
	return s
}

func TestAnswersForEachFamily(t *testing.T) {
	w := newWorld(t, 0)
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30081, "10.244.1.2", "10.244.1.3")) })
	r := w.expect(addr4+":30081", "/", `200 weight "2"`)
	w.expect(addr4+":30081", "/any/path", `200 weight "2"`)
	if r.header.Get("Content-Type") != "application/json" || r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers: %v", r.header)
	}
	if want := "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"; r.body != want {
		t.Errorf("got %s, want %s", r.body, want)
	}
	w.expect("["+addr6+"]:30081", "/", `503 weight "0"`)
}

func TestPortsFollowTheServices(t *testing.T) {
	w := newWorld(t, 0)
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30081, "10.244.1.2")) })
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30082, "10.244.1.2")) })
	w.expect(addr4+":30082", "/", `200 weight "1"`)
	if r, err := w.get(addr4+":30081", "/"); err == nil {
		t.Errorf("the former port answers %s", r)
	}
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30082)) })
	w.expect(addr4+":30082", "/", `503 weight "0"`)
	w.update(func(e *model.Edit) { e.DeleteService(model.ServiceName{Namespace: "default", Name: "web"}) })
	if r, err := w.get(addr4+":30082", "/"); err == nil {
		t.Errorf("the port of a Service that is gone answers %s", r)
	}
}

func TestAPortInUseIsReportedAndTakenOnceItIsFree(t *testing.T) {
	w := newWorld(t, 0)
	other, err := w.node.Listen(context.Background(), "tcp", addr4+":30081")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w.update(func(e *model.Edit) {
		e.SetService(balanced("web", 30081, "10.244.1.2"))
		e.SetService(balanced("other", 30082, "10.244.1.2"))
	})
	reported := func(want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if w.board.Wait(ctx, func(es []status.Entry) bool {
			for _, e := range es {
				if e.Component == "health" {
					return (e.Error != "") == want
				}
			}
			return false
		}) != nil {
			t.Fatalf("on the board: %+v", w.board.Entries())
		}
	}
	reported(true)
	if got := <-w.failed; got != "default/web 30081 true" {
		t.Errorf("told %q", got)
	}
	w.expect(addr4+":30082", "/", `200 weight "1"`)
	other.Close()
	reported(false)
	w.expect(addr4+":30081", "/", `200 weight "1"`)
}

func TestTheNodeAnswersForItself(t *testing.T) {
	w := newWorld(t, 0)
	stay := &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr(addr4), netip.MustParseAddr(addr6)}}
	w.update(func(e *model.Edit) { e.SetNode(stay) })
	w.becomes("["+addr6+"]:10256", "/livez", 200)
	r := w.expect("["+addr6+"]:10256", "/healthz", `200 weight ""`)
	var body struct {
		LastUpdated, CurrentTime time.Time
		NodeEligible             *bool
		Healthy                  bool
		Status                   map[string]struct {
			LastUpdated time.Time
			Healthy     bool
		}
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.NodeEligible == nil || !*body.NodeEligible || !body.Healthy ||
		!body.Status["IPv4"].Healthy || body.Status["IPv6"].LastUpdated.IsZero() || body.LastUpdated != body.CurrentTime {
		t.Errorf("%v: %s", err, r.body)
	}
	w.update(func(e *model.Edit) { leaving := *stay; leaving.Leaving = true; e.SetNode(&leaving) })
	w.expect(addr4+":10256", "/healthz", `503 weight ""`)
	w.expect(addr4+":10256", "/livez", `200 weight ""`)
	if r := w.expect(addr4+":10256", "/", `404 weight ""`); r.body == "" {
		t.Error("404 without a word")
	}
}

func TestFiguresHaveAPortOfTheirOwn(t *testing.T) {
	w := newWorld(t, 0)
	w.becomes("["+addr6+"]:10249", "/metrics", 200)
	w.becomes(addr4+":10256", "/livez", 200)
	w.becomes(addr4+":10256", "/healthz", 503) // there is no Node yet
	r := w.expect(addr4+":10249", "/metrics", `200 weight ""`)
	for _, want := range []string{"\nfigures 7\n", `kubeproxy_proxy_livez_total{code="200"} `, `kubeproxy_proxy_healthz_total{code="503"} `,
		"\nkubeproxy_sync_proxy_rules_last_queued_timestamp_seconds ", "\nprocess_cpu_seconds_total "} {
		if !strings.Contains(r.body, want) {
			t.Errorf("%q is not in\n%s", want, r.body)
		}
	}
	if r := w.expect(addr4+":10249", "/proxyMode", `200 weight ""`); r.body != "nftables" {
		t.Errorf("got %q", r.body)
	}
	w.becomes(addr4+":10256", "/metrics", 404)
}

func TestADataPathThatIsStuckTurnsTrafficAway(t *testing.T) {
	w := newWorld(t, 200*time.Millisecond)
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30081, "10.244.1.2")) })
	w.expect(addr4+":30081", "/", `200 weight "1"`)
	w.kernel.fail(errors.New("injected fault"))
	w.update(func(e *model.Edit) { e.SetService(balanced("web", 30081, "10.244.1.2", "10.244.1.3")) })
	w.becomes(addr4+":10256", "/livez", 503)
	w.expect(addr4+":30081", "/", `503 weight "1"`) // what was programmed last
	w.kernel.fail(nil)
	w.becomes(addr4+":10256", "/livez", 200)
	w.expect(addr4+":30081", "/", `200 weight "2"`)
}

func (p *programmer) fail(err error) {
	if err == nil {
		<-p.err
		return
	}
	p.err <- err
}

func (w *world) becomes(at, path string, want int) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := w.get(at, path)
		if err == nil && r.status == want {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s%s: %v %v, want %d", at, path, r, err, want)
		}
	}
}

func TestHealthChecksAreAnsweredWhereNodePortsAre(t *testing.T) {
	w := newWorld(t, 0)
	node := &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr(addr4), netip.MustParseAddr(addr6)},
		NodePorts: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd01::/16")}}
	w.update(func(e *model.Edit) {
		e.SetNode(node)
		e.SetService(balanced("web", 30081, "10.244.1.2"))
	})
	w.expect(addr4+":30081", "/", `200 weight "1"`)
	if r, err := w.get("["+addr6+"]:30081", "/"); err == nil {
		t.Errorf("an address that answers no NodePorts answers %s", r)
	}
	w.becomes("["+addr6+"]:10256", "/livez", 200) // the node itself is asked at all its addresses
}
