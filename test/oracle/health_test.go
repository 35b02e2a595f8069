//go:build linux

package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/apply"
	"minato/internal/health/server"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/internal/source"
	"minato/internal/status"
	"minato/test/oracle/upstream"
)

// What the ports of Services answer differently on purpose. Each has to be met.
const (
	countsAtOnce = "a port that is opened while its Service has endpoints counts them at once, and not at kube-proxy's next call"
	notLoopback  = "the range 127.0.0.0/8 is put as the range of one of the node's addresses: load balancers ask from outside"
)

var healthAddrs = []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("172.31.0.11")}

// Ports for health checks of Services open, close and answer as kube-proxy's do, through an API's objects, a Loop and
// real sockets.
func TestHealthChecksAreAnsweredAsByKubeProxy(t *testing.T) {
	met := map[string]bool{}
	answers := 0
	for i, events := range mustHealth(t) {
		if events[0].Kind == upstream.ServiceServer {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				w := newHealthWorld(t, events[0].NodePorts, met)
				for _, e := range events[1:] {
					w.happen(e)
					if e.Kind == upstream.Answer {
						answers++
					}
				}
			})
		}
	}
	if answers < 25 {
		t.Errorf("only %d answers", answers)
	}
	for _, reason := range []string{countsAtOnce, notLoopback} {
		if !met[reason] {
			t.Errorf("nothing of upstream is excepted because %s", reason)
		}
	}
}

func mustHealth(t *testing.T) [][]upstream.HealthEvent {
	tests, err := upstream.Health(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// healthWorld is a node with a health server, and a dataplane that can be broken.
type healthWorld struct {
	t       *testing.T
	node    netns.NS
	builder *source.Builder
	board   *status.Board
	broken  chan bool // holds one value
	met     map[string]bool

	ports     map[string]uint16 // of Services, now
	opened    map[uint16]bool   // at any time
	endpoints map[string]int    // as last told
	early     map[string]bool   // Services whose port was opened since then
	serving   []netip.Addr      // addresses at which ports are open
}

func newHealthWorld(t *testing.T, ranges string, met map[string]bool) *healthWorld {
	w := &healthWorld{t: t, node: netnstest.Namespace(t, "node"), builder: completeBuilder(), board: new(status.Board), broken: make(chan bool, 1), met: met,
		opened: map[uint16]bool{}, serving: healthAddrs}
	w.broken <- false
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	for _, a := range healthAddrs {
		netnstest.Run(t, w.node, "ip", "address", "add", a.String()+"/24", "dev", "lo")
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	w.builder.Update(func(b *source.Batch) {
		if ranges != "" {
			met[notLoopback] = met[notLoopback] || ranges == "[127.0.0.0/8]"
			w.serving = healthAddrs[:1]
			b.SetPolicy(source.Policy{NodePorts: []netip.Prefix{netip.PrefixFrom(healthAddrs[0], 32)}})
		}
		b.SetNode(source.Node(node))
	})
	log := slog.New(slog.DiscardHandler)
	progress := new(apply.Progress)
	// With such a timeout the node is out of date as soon as something waits.
	s := server.New(server.Config{Netns: w.node, Addrs: healthAddrs, Progress: progress, Log: log, Timeout: time.Nanosecond})
	loop := apply.New(apply.Config{Source: w.builder, Node: model.Node{Name: "node1"}, Board: w.board, Log: log, Progress: progress,
		Programmers: []apply.Programmer{w}, Publishers: []apply.Publisher{s}, RetryMax: 100 * time.Millisecond, ObserveEvery: time.Hour})
	run(t, s.Run, loop.Run)
	return w
}

// run runs all until the test ends.
func run(t *testing.T, all ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, len(all))
	for _, f := range all {
		go func() { ended <- f(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range all {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

func (*healthWorld) Name() string { return "dataplane" }

// Program fails while the dataplane is broken.
func (w *healthWorld) Program(context.Context, *model.Snapshot) (map[model.ServiceName]error, error) {
	broken := <-w.broken
	w.broken <- broken
	if broken {
		return nil, errors.New("broken")
	}
	return nil, nil
}

// Reap has nothing to delete.
func (*healthWorld) Reap(context.Context, *model.Snapshot) error { return nil }

func (w *healthWorld) happen(e upstream.HealthEvent) {
	switch e.Kind {
	case upstream.PortsNow:
		for name, port := range e.Ports {
			if w.ports[name] != port && w.endpoints[name] > 0 {
				w.early[name] = true
			}
			w.opened[port] = true
		}
		w.ports = e.Ports
		w.update(func(b *source.Batch) {
			var all []*source.ServiceObject
			for name, port := range e.Ports {
				all = append(all, balancedService(serviceName(name), port))
			}
			b.ReplaceServices(all)
		})
		w.checkPorts()
	case upstream.EndpointsNow:
		w.endpoints, w.early = e.Endpoints, map[string]bool{}
		w.update(func(b *source.Batch) {
			var all []*source.SliceObject
			for name, n := range e.Endpoints {
				all = append(all, localSlice(serviceName(name), n))
			}
			b.ReplaceSlices(all)
		})
	case upstream.Answer:
		w.breakOrRepair(!e.Healthy)
		if w.early[e.Service] {
			w.met[countsAtOnce] = true
			e.Weight, e.Status = w.endpoints[e.Service], http.StatusOK
		}
		for _, a := range w.serving {
			w.checkAnswer(netip.AddrPortFrom(a, w.ports[e.Service]), e)
		}
	}
}

// update changes what the API has, and waits until the node is at it.
func (w *healthWorld) update(edit func(*source.Batch)) {
	w.t.Helper()
	w.builder.Update(edit)
	next := w.builder.Current().Revision
	w.wait(func(e status.Entry) bool { return e.Seen == next })
}

// wait waits until f is so for the health server and the dataplane.
func (w *healthWorld) wait(f func(status.Entry) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if err := w.board.Wait(ctx, func(all []status.Entry) bool {
		for _, e := range all {
			if !f(e) {
				return false
			}
		}
		return len(all) == 2
	}); err != nil {
		w.t.Fatalf("%v: %+v", err, w.board.Entries())
	}
}

// breakOrRepair has a change wait for ever, or no longer.
func (w *healthWorld) breakOrRepair(broken bool) {
	w.t.Helper()
	if was := <-w.broken; was == broken {
		w.broken <- was
		return
	}
	w.broken <- broken
	if broken {
		w.update(func(b *source.Batch) { b.SetNamespace("new") })
	} else {
		w.wait(func(e status.Entry) bool { return e.Error == "" })
	}
}

// checkPorts compares which ports are open.
func (w *healthWorld) checkPorts() {
	w.t.Helper()
	want := map[netip.AddrPort]bool{}
	for _, port := range w.ports {
		for _, a := range w.serving {
			want[netip.AddrPortFrom(a, port)] = true
		}
	}
	for port := range w.opened {
		for _, a := range healthAddrs {
			at := netip.AddrPortFrom(a, port)
			c, err := w.node.DialContext(w.t.Context(), "tcp", at.String())
			if err == nil {
				c.Close()
			}
			if (err == nil) != want[at] {
				w.t.Errorf("%s is open: %t", at, err == nil)
			}
		}
	}
}

func (w *healthWorld) checkAnswer(at netip.AddrPort, want upstream.HealthEvent) {
	w.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return w.node.DialContext(ctx, network, address)
		}}}
	resp, err := client.Get("http://" + at.String() + "/healthz")
	if err != nil {
		w.t.Error(err)
		return
	}
	defer resp.Body.Close()
	var body struct {
		Service             struct{ Namespace, Name string }
		LocalEndpoints      int
		ServiceProxyHealthy bool
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		w.t.Error(err)
	}
	got := fmt.Sprint(resp.StatusCode, body, resp.Header["X-Load-Balancing-Endpoint-Weight"], resp.Header["Content-Type"], resp.Header["X-Content-Type-Options"])
	ns, name, _ := strings.Cut(want.Service, "/")
	wanted := fmt.Sprintf("%d {{%s %s} %d %t} [%[4]d] [application/json] [nosniff]", want.Status, ns, name, want.Weight, want.Healthy)
	if got != wanted {
		w.t.Errorf("%s answered %s, want %s", at, got, wanted)
	}
}

func balancedService(n model.ServiceName, port uint16) *source.ServiceObject {
	return source.Service(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ClusterIP: fmt.Sprintf("10.96.0.%d", n.Name[0]), Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: int32(port)}})
}

// localSlice has n endpoints on the node.
func localSlice(s model.ServiceName, n int) *source.SliceObject {
	name, port, node := "", int32(8080), "node1"
	o := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	for i := range n {
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.1.%d", i+1)}, NodeName: &node})
	}
	out, _ := source.Slice(o)
	return out
}
