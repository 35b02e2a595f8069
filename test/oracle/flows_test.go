package oracle

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl"
	"minato/internal/nfnl/nfnltest"
	"minato/test/oracle/upstream"
)

// each sends every packet of upstream's tests that can be asked, in the world of its block, and compares.
func each(t *testing.T, except []exception, world func(*testing.T, upstream.Block) func(upstream.Flow) outcome) {
	asked, total := 0, 0
	for i, b := range mustBlocks(t) {
		total += len(b.Flows)
		t.Run(fmt.Sprintf("%s/%s/%d", b.Suite, b.Test, i), func(t *testing.T) {
			var send func(upstream.Flow) outcome
			var packets sync.WaitGroup
			for _, f := range b.Flows {
				e := exceptional(except, b, f)
				if e != nil && e.ours == "" {
					continue
				}
				if send == nil {
					send = world(t, b)
				}
				asked++
				want := wanted(f).String()
				if e != nil {
					want = e.ours
				}
				packets.Go(func() {
					got := send(f).String()
					for again := 0; got == "DROP" && want != got && again < 5; again++ {
						got = send(f).String() // a slow machine is silent as well
					}
					if got != want {
						t.Errorf("%s: %s -> %s port %d: %s, want %s", f.Name, f.Source, f.Dest, f.Port, got, want)
					}
				})
			}
			packets.Wait()
		})
	}
	t.Logf("%d packets of %d", asked, total)
}

// The plan says of every packet what kube-proxy's rules do with it.
func TestPlanDoesWhatKubeProxyDoes(t *testing.T) {
	each(t, exceptions, func(t *testing.T, b upstream.Block) func(upstream.Flow) outcome {
		s := snapshot(b)
		return func(f upstream.Flow) outcome { return planned(s, f) }
	})
}

// planned looks a packet up in the plans of all Services.
func planned(s *model.Snapshot, f upstream.Flow) outcome {
	src, dst := netip.MustParseAddr(f.Source), netip.MustParseAddr(f.Dest)
	key := nftables.Key{Scope: model.Outside, Addr: dst, Protocol: protocol(f), Port: uint16(f.Port)}
	if slices.ContainsFunc(nftables.PlanNode(s.Node).Inside, func(p netip.Prefix) bool { return p.Contains(src) }) {
		key.Scope = model.Inside
	}
	for svc := range s.Services() {
		p := nftables.PlanService(svc, s.Node, false)
		fe, pool, ok := p.Frontend(key)
		if !ok {
			continue
		}
		if len(fe.Sources) > 0 && !slices.ContainsFunc(fe.Sources, func(p netip.Prefix) bool { return p.Contains(src) }) {
			return outcome{output: "DROP"}
		}
		switch pool.Class.Verdict {
		case model.Reject:
			return outcome{output: "REJECT"}
		case model.Drop:
			return outcome{output: "DROP"}
		}
		hairpin := len(pool.Endpoints) == 1 && pool.Endpoints[0].Addr() == src && slices.Contains(p.Hairpin, src)
		return forwarded(pool.Endpoints, fe.Masquerade || hairpin || slices.Contains(nodeAddrs, src))
	}
	return rest(s, key)
}

// rest is what becomes of packets to no frontend.
func rest(s *model.Snapshot, k nftables.Key) outcome {
	for svc := range s.Services() {
		p := nftables.PlanService(svc, s.Node, false)
		switch {
		case p == nil:
		case slices.Contains(p.ClusterIPs, k.Addr):
			return outcome{output: "REJECT"}
		case slices.Contains(p.LoadBalancers, k.Addr):
			return outcome{output: "DROP"}
		}
	}
	if slices.ContainsFunc(serviceCIDRs, func(p netip.Prefix) bool { return p.Contains(k.Addr) }) {
		return outcome{output: "DROP"}
	}
	return outcome{}
}

// The rules and maps that are sent to the kernel do it too, in an interpreter of nf_tables.
func TestRulesDoWhatKubeProxyDoes(t *testing.T) {
	each(t, exceptions, func(t *testing.T, b upstream.Block) func(upstream.Flow) outcome {
		k := nfnltest.New()
		a, err := kernel.Open(kernel.Config{Kernel: k, ServiceCIDRs: serviceCIDRs})
		if err != nil {
			t.Fatal(err)
		}
		s := snapshot(b)
		if failed, err := a.Program(context.Background(), s); err != nil || len(failed) > 0 {
			t.Fatal(failed, err)
		}
		return func(f upstream.Flow) outcome { return interpreted(k, f) }
	})
}

// interpreted sends a packet once for every number that the rules can draw.
func interpreted(k *nfnltest.Kernel, f upstream.Flow) outcome {
	src, dst := netip.MustParseAddr(f.Source), netip.MustParseAddr(f.Dest)
	family, hook := nfnl.IPv4, "prerouting"
	if dst.Is6() {
		family = nfnl.IPv6
	}
	if slices.Contains(nodeAddrs, src) || src.IsLoopback() {
		hook = "output"
	}
	var to []netip.AddrPort
	masq := slices.Contains(nodeAddrs, src)
	for i, n := uint32(0), uint32(1); i < n; i++ {
		p := nfnltest.Packet{Src: netip.AddrPortFrom(src, 40000), Dst: netip.AddrPortFrom(dst, uint16(f.Port)), Protocol: uint8(protocol(f)),
			Random: func(of uint32) uint32 { n = of; return i }}
		r := k.Run(family, kernel.DefaultTable, hook, p)
		if r.Action == "accept" && !slices.Contains(nodeAddrs, dst) {
			r = k.Run(family, kernel.DefaultTable, "forward", p)
		}
		switch r.Action {
		case "accept":
			return outcome{}
		case "drop":
			return outcome{output: "DROP"}
		case "reset", "unreachable":
			return outcome{output: "REJECT"}
		case "dnat":
			to = append(to, r.To)
			p.Original, p.Dst = p.Dst, r.To
			masq = masq || k.Run(family, kernel.DefaultTable, "postrouting", p).Action == "snat"
		}
	}
	return forwarded(to, masq)
}
