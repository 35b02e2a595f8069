package oracle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/coredns/coredns/plugin/kubernetes/object"
	"github.com/coredns/coredns/request"
	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

// zones are the own ones of both servers. CoreDNS has all reverse names, of which ours asks an upstream when they are
// not of the cluster's ranges.
var zones = []string{"cluster.local.", "96.10.in-addr.arpa.", "244.10.in-addr.arpa.",
	"0.1.0.0.0.0.d.f.ip6.arpa.", "0.2.0.0.0.0.d.f.ip6.arpa.", "in-addr.arpa.", "ip6.arpa."}

// newCoreDNS is the plugin over the world, with the options of a Corefile's stanza.
func newCoreDNS(t *testing.T, w *world, options string) *kubernetes.Kubernetes {
	t.Helper()
	k, err := kubernetes.ParseStanza(caddy.NewTestController("dns", "kubernetes "+options))
	if err != nil {
		t.Fatal(err)
	}
	k.Zones = zones
	if strings.Contains(options, "noendpoints") {
		w = &world{namespaces: w.namespaces, services: w.services, pods: w.pods}
	}
	k.APIConn = newConn(t, w)
	k.Upstream = upstream{}
	return k
}

// askCoreDNS answers a message as CoreDNS's server would with this one plugin.
func askCoreDNS(k *kubernetes.Kubernetes, q *mdns.Msg, tcp bool) *mdns.Msg {
	w := &recorder{tcp: tcp}
	rcode, _ := k.ServeDNS(context.Background(), request.NewScrubWriter(q, w), q)
	if w.m == nil { // the server answers in the plugin's place
		w.m = new(mdns.Msg).SetRcode(q, rcode)
	}
	return w.m
}

// conn is CoreDNS's view of a world, through its own conversions.
type conn struct {
	w        *world
	services []*object.Service
	slices   []*object.Endpoints
}

func newConn(t *testing.T, w *world) *conn {
	t.Helper()
	c := &conn{w: w}
	for _, s := range w.services {
		o, err := object.ToService(s.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		c.services = append(c.services, o.(*object.Service))
	}
	for _, s := range w.slices {
		o, err := object.EndpointSliceToEndpoints(s.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		c.slices = append(c.slices, o.(*object.Endpoints))
	}
	return c
}

func filter[T any](all []T, keep func(T) bool) (out []T) {
	for _, v := range all {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

func (c *conn) ServiceList() []*object.Service     { return c.services }
func (c *conn) EndpointsList() []*object.Endpoints { return c.slices }
func (c *conn) SvcIndex(i string) []*object.Service {
	return filter(c.services, func(s *object.Service) bool { return s.Index == i })
}
func (c *conn) SvcIndexReverse(ip string) []*object.Service {
	return filter(c.services, func(s *object.Service) bool { return slices.Contains(s.ClusterIPs, ip) })
}
func (c *conn) EpIndex(i string) []*object.Endpoints {
	return filter(c.slices, func(e *object.Endpoints) bool { return e.Index == i })
}
func (c *conn) EpIndexReverse(ip string) []*object.Endpoints {
	return filter(c.slices, func(e *object.Endpoints) bool { return slices.Contains(e.IndexIP, ip) })
}
func (c *conn) PodIndex(ip string) (out []*object.Pod) {
	for _, p := range c.w.pods {
		if p.ip == ip {
			out = append(out, &object.Pod{Namespace: p.namespace, PodIPs: []string{p.ip}})
		}
	}
	return out
}
func (c *conn) GetNamespaceByName(n string) (*object.Namespace, error) {
	if slices.Contains(c.w.namespaces, n) {
		return &object.Namespace{Name: n}, nil
	}
	return nil, fmt.Errorf("no namespace %q", n)
}
func (*conn) GetNodeByName(context.Context, string) (*corev1.Node, error) {
	return nil, errors.New("none")
}
func (*conn) ServiceImportList() []*object.ServiceImport       { return nil }
func (*conn) SvcExtIndexReverse(string) []*object.Service      { return nil }
func (*conn) SvcImportIndex(string) []*object.ServiceImport    { return nil }
func (*conn) McEpIndex(string) []*object.MultiClusterEndpoints { return nil }
func (*conn) Run()                                             {}
func (*conn) HasSynced() bool                                  { return true }
func (*conn) Stop() error                                      { return nil }
func (*conn) Modified(kubernetes.ModifiedMode) int64           { return 1 }

// upstream knows names outside of the cluster, for CNAMEs that lead there.
type upstream struct{}

func (upstream) Lookup(_ context.Context, _ request.Request, name string, qtype uint16) (*mdns.Msg, error) {
	return outside(new(mdns.Msg).SetQuestion(name, qtype)), nil
}

// outside is what both servers' upstream says.
func outside(q *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg).SetReply(q)
	name := q.Question[0].Name
	switch {
	case name != "www.example.com.":
		m.Rcode = mdns.RcodeNameError
	case q.Question[0].Qtype == mdns.TypeA: // with TTL 0, so that no cache makes a difference
		m.Answer = append(m.Answer, record(name+" 0 IN A 192.0.2.80"))
	}
	return m
}

func record(s string) mdns.RR {
	rr, err := mdns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return rr
}

// recorder keeps the reply.
type recorder struct {
	m   *mdns.Msg
	tcp bool
}

func (r *recorder) WriteMsg(m *mdns.Msg) error { r.m = m; return nil }
func (*recorder) Write(b []byte) (int, error)  { return len(b), nil }
func (r *recorder) LocalAddr() net.Addr        { return r.addr(53) }
func (r *recorder) RemoteAddr() net.Addr       { return r.addr(5353) }
func (*recorder) Network() string              { return "" }
func (*recorder) Close() error                 { return nil }
func (*recorder) TsigStatus() error            { return nil }
func (*recorder) TsigTimersOnly(bool)          {}
func (*recorder) Hijack()                      {}
func (r *recorder) addr(port int) net.Addr {
	if r.tcp {
		return &net.TCPAddr{IP: net.IP{127, 0, 0, 1}, Port: port}
	}
	return &net.UDPAddr{IP: net.IP{127, 0, 0, 1}, Port: port}
}
