//go:build linux

package explain_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/explain"
	"minato/internal/model"
)

const (
	pairs         = 1000 // of source and destination
	pairsPerWorld = 40
	workers       = 8
	patience      = 3 * time.Second        // for an answer that is to come
	silence       = 500 * time.Millisecond // after which nothing is thought to come
)

// TestExplainSaysWhatPacketsDo draws Services of all kinds and connections to them. MINATO_SEED repeats a run.
func TestExplainSaysWhatPacketsDo(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MINATO_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MINATO_SEED=%d", seed)
	d := draw{rand.New(rand.NewPCG(seed, 0))}
	w := newWorld(t)
	var seen counts
	for i := range pairs / pairsPerWorld {
		yaml := d.objects(w, i)
		snapshot := w.take(yaml)
		if disagreements := compareAll(w, snapshot, d.connections(w, snapshot), &seen); len(disagreements) > 0 {
			t.Errorf("world %d:\n%s\n%s", i, strings.Join(disagreements, "\n"), yaml)
		}
	}
	t.Logf("%d delivered, %d of them to the backend kept by affinity, %d refused, %d dropped",
		seen.delivered.Load(), seen.pinned.Load(), seen.refused.Load(), seen.dropped.Load())
	if seen.delivered.Load() < pairs/4 || seen.pinned.Load() < pairs/50 || seen.refused.Load() < pairs/20 || seen.dropped.Load() < pairs/20 {
		t.Error("that is too little variety to show anything")
	}
}

type counts struct{ delivered, refused, dropped, pinned atomic.Int64 }

// connection is a question to explain, and to the kernel.
type connection struct {
	from    place
	network string
	to      netip.AddrPort
}

func (c connection) String() string {
	return fmt.Sprintf("%s %s from %s", c.network, c.to, c.from.name)
}

// compareAll returns what explain and packets do not agree on.
func compareAll(w *world, s *model.Snapshot, all []connection, seen *counts) []string {
	work := make(chan connection)
	var mu sync.Mutex
	var found []string
	var busy sync.WaitGroup
	for range workers {
		busy.Go(func() {
			for c := range work {
				if err := compare(w, s, c, seen); err != nil {
					mu.Lock()
					found = append(found, fmt.Sprintf("%s: %v", c, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, c := range all {
		work <- c
	}
	close(work)
	busy.Wait()
	return found
}

func compare(w *world, s *model.Snapshot, c connection, seen *counts) error {
	r, err := w.explain(s, c)
	if err != nil {
		return err
	}
	switch r.Verdict {
	case explain.Delivered:
		seen.delivered.Add(1)
		err = c.delivered(w, s, r, seen)
	case explain.Refused:
		seen.refused.Add(1)
		if _, got := c.ask(patience); !refused(got) && !stopped(got) && !unreachable(got) {
			err = fmt.Errorf("want a refusal, got %v", got)
		}
	case explain.Dropped:
		seen.dropped.Add(1)
		if a, got := c.ask(silence); got == nil || refused(got) || unreachable(got) {
			err = fmt.Errorf("want silence, got %v, %v", a, got)
		}
	default:
		err = fmt.Errorf("an address is no name")
	}
	if err != nil {
		var text strings.Builder
		_ = r.WriteText(&text) // into memory
		err = fmt.Errorf("%w\n%s", err, text.String())
	}
	return err
}

// explain answers as `minato explain` does, with what the nodes' kernels hold. What it says of them must be what
// was programmed: nobody else has touched them.
func (w *world) explain(s *model.Snapshot, c connection) (explain.Result, error) {
	r, err := explain.Explain(explain.World{
		Snapshot: s, ServiceCIDRs: []netip.Prefix{serviceCIDR}, Unrouted: []netip.Prefix{serviceCIDR, netip.MustParsePrefix("10.244.0.0/16")},
		Held: w.held,
	}, explain.Query{To: c.to.String(), From: c.from.name, Protocol: c.network})
	if err == nil && len(r.Kernel) > 0 {
		err = fmt.Errorf("the kernel differs: %v", r.Kernel)
	}
	return r, err
}

func (w *world) held(node string, f explain.Frontend, client netip.Addr) (explain.Held, error) {
	for _, n := range w.nodes {
		if n.name != "node/"+node {
			continue
		}
		a, pin, found, err := n.dataplane.Read(nftables.Key{Scope: f.Scope, Addr: f.Addr.Addr(), Protocol: f.Protocol, Port: f.Addr.Port()}, client)
		return explain.Held{Held: nftables.Held{Found: found, Verdict: a.Verdict, Affinity: a.Affinity, Endpoints: a.Endpoints, Masquerade: a.Masquerade},
			Pin: explain.Pin{Backend: pin.Endpoint, Left: pin.Left}}, err
	}
	return explain.Held{}, fmt.Errorf("no node %s", node)
}

// delivered asks until every backend of r has answered, and compares the client's address that it has seen. With
// session affinity the one that explain says the client is kept at must answer, and explain must say so of the one
// that has answered.
func (c connection) delivered(w *world, s *model.Snapshot, r explain.Result, seen *counts) error {
	want := map[string]string{}
	for _, b := range r.Backends {
		want[b.Addr.String()] = b.Source
	}
	sticky := false
	if ns, name, ok := strings.Cut(r.Service, "/"); ok {
		sticky = s.Service(model.ServiceName{Namespace: ns, Name: name}).SessionAffinity > 0
	}
	got := map[string]bool{}
	for asked, enough := 0, 3; asked < enough; asked++ {
		a, err := c.ask(patience)
		if err != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		if source, ok := want[a.server]; !ok || source != a.peer {
			return fmt.Errorf("%s answered and has seen %s", a.server, a.peer)
		}
		got[a.server] = true
		switch {
		case sticky && len(got) > 1:
			return fmt.Errorf("session affinity, but %v answered", got)
		case !sticky && asked == enough-1 && len(got) < len(want) && asked < 30*len(want): // e^-30 is never
			enough++
		}
	}
	if !sticky && len(got) < len(want) {
		return fmt.Errorf("only %v answered", got)
	}
	if sticky {
		return c.pinned(w, s, got, seen)
	}
	return nil
}

// pinned compares what explain says after a connection with who has answered it.
func (c connection) pinned(w *world, s *model.Snapshot, got map[string]bool, seen *counts) error {
	r, err := w.explain(s, c)
	switch {
	case err != nil:
		return err
	case r.Pinned == nil || !got[r.Pinned.Backend.String()]:
		return fmt.Errorf("%v answered, and then explain has the client kept at %v", got, r.Pinned)
	case len(r.Backends) != 1 || r.Backends[0].Addr != r.Pinned.Backend || r.Pinned.Left <= 0 || r.Pinned.Left > 3*time.Hour:
		return fmt.Errorf("the client is kept at %v, and the backends are %v", r.Pinned, r.Backends)
	}
	seen.pinned.Add(1)
	return nil
}

// reply is who answered, and the client's address as it has seen it.
type reply struct{ server, peer string }

// ask opens one connection and reads the server's words (see netnstest.Server).
func (c connection) ask(within time.Duration) (a reply, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	dialer := net.Dialer{}
	if c.from.bind {
		dialer.LocalAddr = &net.TCPAddr{IP: c.from.addr.AsSlice()}
		if c.network == "udp" {
			dialer.LocalAddr = &net.UDPAddr{IP: c.from.addr.AsSlice()}
		}
	}
	var conn net.Conn
	err = c.from.ns.Do(func() error {
		conn, err = dialer.DialContext(ctx, c.network, c.to.String())
		return err
	})
	if err != nil {
		return a, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return a, err
	}
	if c.network == "udp" {
		if _, err := conn.Write([]byte("who?")); err != nil {
			return a, err
		}
	}
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
		return a, err
	}
	server, peer, _ := strings.Cut(string(buf[:n]), " ")
	at, err := netip.ParseAddrPort(peer)
	return reply{server, at.Addr().String()}, err
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// unreachable is what a route that says so gives, of the own machine or by an ICMP message.
func unreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// stopped is what sendto says of a datagram that a rule of its own host refuses or drops: it does not say which.
func stopped(err error) bool { return errors.Is(err, syscall.EPERM) }

// draw makes random Services and connections.
type draw struct{ *rand.Rand }

func (d draw) chance(percent int) bool { return d.IntN(100) < percent }

func (d draw) one(of ...string) string { return of[d.IntN(len(of))] }

// objects is the three nodes and some Services, whose names and addresses are those of the i-th world alone.
func (d draw) objects(w *world, i int) string {
	var y strings.Builder
	for n := range 3 {
		fmt.Fprintf(&y, `---
{apiVersion: v1, kind: Node, metadata: {name: node%d}, spec: {podCIDR: %s},
 status: {addresses: [{type: InternalIP, address: %s}], conditions: [{type: Ready, status: "True"}]}}
`, n+1, podCIDR(n), nodeAddr(n))
	}
	for k := range 6 {
		d.service(&y, w, i, k)
	}
	return y.String()
}

func (d draw) service(y *strings.Builder, w *world, i, k int) {
	serial := i*6 + k
	kind := d.one("ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer")
	var external []string
	if d.chance(30) {
		external = append(external, netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + serial)}).String())
	}
	if d.chance(10) {
		external = append(external, nodeAddr(d.IntN(3)).String())
	}
	fmt.Fprintf(y, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec:\n  type: %s\n  clusterIP: 10.96.%d.%d\n", serial, kind, i, k+1)
	if len(external) > 0 {
		fmt.Fprintf(y, "  externalIPs: [%s]\n", strings.Join(external, ", "))
	}
	if kind != "ClusterIP" || len(external) > 0 {
		fmt.Fprintf(y, "  externalTrafficPolicy: %s\n", d.one("Cluster", "Local"))
	}
	fmt.Fprintf(y, "  internalTrafficPolicy: %s\n", d.one("Cluster", "Cluster", "Local"))
	if d.chance(25) {
		y.WriteString("  sessionAffinity: ClientIP\n")
	}
	if kind == "LoadBalancer" && d.chance(40) {
		fmt.Fprintf(y, "  loadBalancerSourceRanges: [%s]\n", strings.Join(d.some("172.30.0.0/24", "10.244.0.0/16", "198.51.100.0/24", "172.30.0.12/32", "10.244.2.0/24"), ", "))
	}
	y.WriteString("  ports:\n")
	for _, protocol := range d.some("TCP", "UDP") {
		fmt.Fprintf(y, "  - {name: %s, protocol: %s, port: %d", strings.ToLower(protocol), protocol, 80+k)
		if kind != "ClusterIP" {
			fmt.Fprintf(y, ", nodePort: %d", 30000+serial)
		}
		y.WriteString("}\n")
	}
	if kind == "LoadBalancer" {
		a := balanced.First.As4()
		a[3] += byte(serial)
		fmt.Fprintf(y, "status: {loadBalancer: {ingress: [{ip: %s}]}}\n", netip.AddrFrom4(a))
	}
	d.slice(y, w, serial)
}

// slice lists endpoints in every condition there is. Some Services have none, and some only such as are no use.
func (d draw) slice(y *strings.Builder, w *world, serial int) {
	fmt.Fprintf(y, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s%d-1, labels: {kubernetes.io/service-name: s%d}}\naddressType: IPv4\n", serial, serial)
	fmt.Fprintf(y, "ports: [{name: tcp, protocol: TCP, port: %d}, {name: udp, protocol: UDP, port: %d}]\nendpoints:\n", backendPort, backendPort)
	ready, included := d.one("true", "true", "true", "false"), 15+d.IntN(60)
	if d.chance(10) {
		included = 0
	}
	for _, p := range w.backends() {
		if !d.chance(included) {
			continue
		}
		condition := d.one(
			"ready: "+ready+", serving: "+ready+", terminating: false",
			"ready: "+ready+", serving: true, terminating: "+map[string]string{"true": "false", "false": "true"}[ready],
			"ready: false, serving: false, terminating: false",
			"ready: false, serving: false, terminating: true",
			"ready: false, serving: true, terminating: true",
		)
		fmt.Fprintf(y, "- {addresses: [%s], nodeName: %s, conditions: {%s}}\n", p.addr, nodeOf(p.addr), condition)
	}
}

// some is one or more of them.
func (d draw) some(of ...string) []string {
	d.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
	return of[:1+d.IntN(len(of))]
}

// connections go to frontends mostly, sometimes to where there is none.
func (d draw) connections(w *world, s *model.Snapshot) []connection {
	var frontends []connection
	for svc := range s.Services() {
		for _, f := range svc.Frontends {
			to := []netip.AddrPort{f.Addr}
			if f.Kind == model.NodePort {
				to = nil
				for n := range 3 {
					to = append(to, netip.AddrPortFrom(nodeAddr(n), f.Addr.Port()))
				}
			}
			for _, a := range to {
				frontends = append(frontends, connection{network: f.Protocol.String(), to: a})
			}
		}
	}
	origins := w.origins()
	all := map[string]connection{}
	for len(all) < pairsPerWorld {
		c := frontends[d.IntN(len(frontends))]
		c.from = origins[d.IntN(len(origins))]
		switch {
		case d.chance(8) && !externalIPs.Contains(c.to.Addr()): // other ports of which are left alone
			c.to = netip.AddrPortFrom(c.to.Addr(), 9999)
		case d.chance(3) && !externalIPs.Contains(c.to.Addr()):
			c.network = map[string]string{"tcp": "udp", "udp": "tcp"}[c.network]
		case d.chance(3):
			c.to = netip.AddrPortFrom(w.pods[d.IntN(len(w.pods))].addr, backendPort)
		case d.chance(2):
			c.to = netip.MustParseAddrPort("10.97.1.1:80")
		}
		all[c.String()] = c
	}
	return slices.Collect(maps.Values(all))
}
