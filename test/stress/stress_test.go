//go:build linux

package stress

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/explain"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/internal/nfnl"
)

var (
	seed     = flag.Uint64("seed", 0, "what is done; 0: another at every run")
	duration = flag.Duration("duration", 20*time.Second, "how long new rounds are begun")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if at, _ := agentBinary(); at != "" {
		os.RemoveAll(filepath.Dir(at))
	}
	os.Exit(code)
}

func TestStress(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64() >> 12
	}
	end := time.Now().Add(*duration)
	for i := uint64(0); i == 0 || time.Now().Before(end) && *seed == 0 && !t.Failed(); i++ {
		t.Run(fmt.Sprint("seed ", first+i), func(t *testing.T) { round(t, first+i) })
	}
}

// round is one node from an empty kernel to the end.
func round(t *testing.T, seed uint64) {
	w := newWorld(t)
	o := newObjects(rand.New(rand.NewPCG(seed, 0)))
	w.api.Set(o.node.DeepCopy())
	var n node = &faulty{w: w, seed: seed}
	if seed%2 == 0 {
		n = &process{w: w, dir: t.TempDir()}
	}
	n.start()
	t.Cleanup(func() { n.kill() })
	for step := range 6 {
		var done []string
		for range 1 + o.IntN(12) {
			done = append(done, o.change(w.api))
			if o.IntN(8) == 0 {
				done = append(done, w.disturb(o, n))
			}
		}
		s := o.snapshot()
		if err := w.settled(s); err != nil {
			t.Fatalf("step %d, after %q: %v", step, done, err)
		}
		for range 12 {
			w.try(o, s)
		}
		if t.Failed() {
			t.Fatalf("step %d, after %q", step, done)
		}
	}
}

// disturb does what nobody should.
func (w *world) disturb(o *objects, n node) string {
	switch o.IntN(4) {
	case 0:
		netnstest.Try(w.node, "nft", "flush", "ruleset")
		return "nft flush ruleset"
	case 1:
		netnstest.Try(w.node, "nft", "flush", "map", "ip", kernel.DefaultTable, []string{"svc", "slot", "ep"}[o.IntN(3)])
		return "nft flush map"
	case 2:
		n.kill()
		time.Sleep(time.Duration(o.IntN(5)) * time.Millisecond)
		n.start()
		return "kill and start"
	}
	time.Sleep(time.Duration(o.IntN(20)) * time.Millisecond)
	return "rest"
}

// want is what Select says of a frontend in a scope.
func want(s *model.Snapshot, svc *model.Service, f model.Frontend, k nftables.Key) (v model.Verdict, to []netip.AddrPort) {
	sel := model.Select(svc, f, s.Node, k.Scope)
	for _, b := range sel.Backends {
		to = append(to, b.Addr)
	}
	return sel.Verdict, to
}

// frontends calls yield for every frontend in both scopes.
func frontends(s *model.Snapshot, yield func(*model.Service, model.Frontend, nftables.Key)) {
	for svc := range s.Services() {
		for _, f := range svc.Frontends {
			a := f.Addr.Addr()
			if f.Kind == model.NodePort {
				a = netip.MustParseAddr(nodeAddr)
			}
			for _, scope := range []model.Scope{model.Outside, model.Inside} {
				yield(svc, f, nftables.Key{Scope: scope, Addr: a, Protocol: f.Protocol, Port: f.Addr.Port()})
			}
		}
	}
}

// settled waits until the kernel's maps say what Select says, and hold no more than after a fresh load.
func (w *world) settled(s *model.Snapshot) (err error) {
	fresh := netnstest.Namespace(w.t, "fresh")
	a := w.look(fresh)
	ctx := context.Background()
	if failed, err := a.Program(ctx, s); err != nil || len(failed) > 0 {
		return fmt.Errorf("fresh load: %v %w", failed, err)
	}
	if err := a.Reap(ctx, s); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = w.compare(s, fresh); err == nil {
			return nil
		}
	}
	return err
}

func (w *world) compare(s *model.Snapshot, fresh netns.NS) (err error) {
	seen, err := kernel.Open(kernel.Config{Netns: w.node, ServiceCIDRs: serviceCIDRs})
	if err != nil {
		return err
	}
	defer seen.Close()
	frontends(s, func(svc *model.Service, f model.Frontend, k nftables.Key) {
		verdict, to := want(s, svc, f, k)
		got, ok := seen.Lookup(k)
		slices.SortFunc(got.Endpoints, netip.AddrPort.Compare)
		if !ok || got.Verdict != verdict || !slices.Equal(got.Endpoints, to) {
			err = fmt.Errorf("%s: the kernel says %v %t, Select %s %v", k, got, ok, verdict, to)
		}
	})
	if err != nil {
		return err
	}
	for _, f := range []nfnl.Family{nfnl.IPv4, nfnl.IPv6} {
		for _, set := range []string{"scope", "node", "range", "svc", "slot", "ep", "allow", "masq", "hairpin", "vip", "lb", "pass"} {
			got, err1 := count(w.node, f, set)
			want, err2 := count(fresh, f, set)
			if err := errors.Join(err1, err2); err != nil || got != want {
				return fmt.Errorf("%s %s has %d elements, after a fresh load %d: %w", f, set, got, want, err)
			}
		}
	}
	return nil
}

func count(ns netns.NS, f nfnl.Family, set string) (n int, err error) {
	c, err := nfnl.Open(ns)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return n, errors.Join(c.Elements(f, kernel.DefaultTable, set, func() { n = 0 }, func(nfnl.Element) { n++ }))
}

// try opens one connection and compares where it ends with Select and with explain.
func (w *world) try(o *objects, s *model.Snapshot) {
	type target struct {
		svc *model.Service
		f   model.Frontend
		k   nftables.Key
	}
	var all []target
	frontends(s, func(svc *model.Service, f model.Frontend, k nftables.Key) { all = append(all, target{svc, f, k}) })
	if len(all) == 0 {
		return
	}
	to := all[o.IntN(len(all))]
	from, ns := netip.MustParseAddr(outsideAddr), w.outside
	if to.k.Scope == model.Inside {
		a := here[o.IntN(len(here))]
		from, ns = netip.MustParseAddr(a), w.pods[a]
		if o.IntN(3) == 0 {
			from, ns = netip.MustParseAddr(nodeAddr), w.node
		}
	}
	verdict, endpoints := want(s, to.svc, to.f, to.k)
	if f, _, ok := nftables.PlanService(to.svc, s.Node, false).Frontend(to.k); ok && len(f.Sources) > 0 &&
		!slices.ContainsFunc(f.Sources, func(p netip.Prefix) bool { return p.Contains(from) }) {
		verdict, endpoints = model.Drop, nil
	}
	at := netip.AddrPortFrom(to.k.Addr, to.k.Port)
	what := fmt.Sprintf("%s from %s, %s", at, from, to.k.Protocol)
	got, peer := w.ask(ns, to.k.Protocol.String(), at, verdict)
	if verdict == model.Forward && !slices.Contains(endpoints, got) || verdict != model.Forward && got.IsValid() {
		w.t.Errorf("%s: answered by %s, Select says %s %v", what, got, verdict, endpoints)
	}
	w.explained(s, what, from, peer, at, got, to.k, verdict, endpoints)
}

// explained compares with explain. From outside, ClusterIPs are another matter to it: nobody leads them here.
func (w *world) explained(s *model.Snapshot, what string, from, peer netip.Addr, at, got netip.AddrPort, k nftables.Key, verdict model.Verdict, endpoints []netip.AddrPort) {
	if k.Scope == model.Outside && serviceCIDRs[0].Contains(k.Addr) {
		return
	}
	r, err := explain.Explain(explain.World{Snapshot: s, ServiceCIDRs: serviceCIDRs}, explain.Query{To: at.String(), From: from.String(), Protocol: k.Protocol.String()})
	if err != nil {
		w.t.Errorf("%s: explain: %v", what, err)
		return
	}
	expected := map[model.Verdict]explain.Verdict{model.Forward: explain.Delivered, model.Reject: explain.Refused, model.Drop: explain.Dropped}[verdict]
	var backends []netip.AddrPort
	source := ""
	for _, b := range r.Backends {
		backends = append(backends, b.Addr)
		if b.Addr == got {
			source = b.Source
		}
	}
	if r.Verdict != expected || verdict == model.Forward && (!slices.Equal(backends, endpoints) || source != peer.String()) {
		w.t.Errorf("%s: explain says %s %v from %q; it is %s %v from %s", what, r.Verdict, backends, source, expected, endpoints, peer)
	}
}

// ask opens a connection; an invalid address is a refusal or silence. A slow machine may be silent as well.
func (w *world) ask(ns netns.NS, network string, at netip.AddrPort, verdict model.Verdict) (by netip.AddrPort, peer netip.Addr) {
	for again := 0; ; again++ {
		a, err := netnstest.Ask(ns, network, at.String())
		var timeout net.Error
		silent := errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() ||
			verdict == model.Drop && ns == w.node && errors.Is(err, syscall.EPERM) // how a node's own datagram is dropped
		switch {
		case err == nil:
			return netip.AddrPortFrom(netip.MustParseAddr(a.Name), 8080), a.Peer
		case silent && verdict != model.Drop && again < 10:
			continue
		case silent != (verdict == model.Drop):
			w.t.Errorf("%s %s from %s: %v, want %s", network, at, ns, err, verdict)
		case !silent && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EPERM):
			w.t.Errorf("%s %s from %s: %v", network, at, ns, err)
		}
		return netip.AddrPort{}, netip.Addr{}
	}
}
