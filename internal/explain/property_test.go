package explain_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"minato/internal/dataplane/nftables"
	"minato/internal/explain"
	"minato/internal/model"
)

// drawWorld is three nodes and one Service of every kind of frontend, with random policies and backends.
func drawWorld(t *rapid.T) *model.Snapshot {
	policy := rapid.SampledFrom([]model.TrafficPolicy{model.Cluster, model.Local})
	s := &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: "web"}, Type: model.TypeLoadBalancer, Proxied: true,
		ClusterIPs:            []netip.Addr{netip.MustParseAddr("10.96.0.20")},
		Ports:                 []model.Port{{Protocol: model.TCP, Port: 80, NodePort: 30080}},
		InternalTrafficPolicy: policy.Draw(t, "internal"), ExternalTrafficPolicy: policy.Draw(t, "external"),
	}
	for kind, addr := range map[model.FrontendKind]string{
		model.ClusterIP: "10.96.0.20:80", model.NodePort: "0.0.0.0:30080", model.ExternalIP: "192.0.2.1:80", model.LoadBalancer: "172.30.0.200:80",
	} {
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP, Kind: kind})
	}
	sl := &model.BackendSlice{Name: "web-1"}
	for i := range rapid.IntRange(0, 6).Draw(t, "backends") {
		node := rapid.IntRange(1, 3).Draw(t, "node")
		sl.Backends = append(sl.Backends, model.Backend{
			Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(node), byte(i + 1)}), 8080),
			Protocol: model.TCP, NodeName: fmt.Sprint("node", node), Target: fmt.Sprint("default/pod-", i),
			Ready: rapid.Bool().Draw(t, "ready"), Serving: rapid.Bool().Draw(t, "serving"), Terminating: rapid.Bool().Draw(t, "terminating"),
		})
	}
	s.Slices = []*model.BackendSlice{sl}
	return model.Empty().With(func(e *model.Edit) {
		e.SetService(s)
		for i := range 3 {
			e.SetNode(&model.Node{
				Name: fmt.Sprint("node", i+1), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(11 + i)})},
				PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0}), 24)},
			})
		}
	})
}

// entered is the node that looks the packet up: the destination's, where it is a node's address, unless the packet
// starts on a node, whose maps come first and know all addresses but other nodes'.
func entered(s *model.Snapshot, from, to netip.Addr) *model.Node {
	if owner := s.LocalNode(to); owner != nil {
		return owner
	}
	for n := range s.Nodes() {
		if n.IsLocal(from) {
			return n
		}
	}
	return s.NodeNamed("node1")
}

// What explain says of a connection is what the plan of the dataplane does with its packets.
func TestExplainSaysWhatThePlanDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawWorld(t)
		from := netip.MustParseAddr(rapid.SampledFrom([]string{
			"10.244.1.1", "10.244.1.200", "10.244.2.2", "172.30.0.11", "172.30.0.12", "198.51.100.7",
		}).Draw(t, "from"))
		to := netip.MustParseAddrPort(rapid.SampledFrom([]string{
			"10.96.0.20:80", "172.30.0.11:30080", "172.30.0.12:30080", "192.0.2.1:80", "172.30.0.200:80",
		}).Draw(t, "to"))
		r, err := explain.Explain(explain.World{Snapshot: s}, explain.Query{To: to.String(), From: from.String()})
		if err != nil {
			t.Fatal(err)
		}
		n := entered(s, from, to.Addr())
		scope := model.Outside
		if slices.ContainsFunc(nftables.PlanNode(n).Inside, func(p netip.Prefix) bool { return p.Contains(from) }) {
			scope = model.Inside
		}
		plan := nftables.PlanService(s.Service(model.ServiceName{Namespace: "default", Name: "web"}), n, false)
		f, pool, ok := plan.Frontend(nftables.Key{Scope: scope, Addr: to.Addr(), Protocol: model.TCP, Port: to.Port()})
		if !ok {
			t.Fatalf("the plan of %s has no frontend %s", n.Name, to)
		}
		if f.Kind == model.ClusterIP && from.String() == "198.51.100.7" {
			if r.Verdict != explain.Dropped {
				t.Fatalf("a ClusterIP from outside is %s", r.Verdict)
			}
			return
		}
		compare(t, r, plan, f, pool, n, from)
	})
}

func compare(t *rapid.T, r explain.Result, plan *nftables.ServicePlan, f nftables.Frontend, pool *nftables.Pool, n *model.Node, from netip.Addr) {
	verdicts := map[model.Verdict]explain.Verdict{model.Forward: explain.Delivered, model.Reject: explain.Refused, model.Drop: explain.Dropped}
	if want := verdicts[pool.Class.Verdict]; r.Verdict != want {
		t.Fatalf("verdict %s, the plan's is %s", r.Verdict, want)
	}
	var got []netip.AddrPort
	for _, b := range r.Backends {
		got = append(got, b.Addr)
		source := from
		hairpin := b.Addr.Addr() == from && slices.Contains(plan.Hairpin, from)
		if f.Masquerade || hairpin {
			source = n.Addr(false)
		}
		if b.Source != source.String() {
			t.Fatalf("backend %s sees %s (%s), by the plan %s", b.Addr, b.Source, b.SourceWhy, source)
		}
	}
	if !slices.Equal(got, pool.Endpoints) {
		t.Fatalf("backends %v, the plan's are %v", got, pool.Endpoints)
	}
	if len(r.Advice) == 0 && r.Verdict != explain.Delivered {
		t.Fatal("no advice for a connection that fails")
	}
}

// Whatever is asked, there is an answer or a word on the question.
func FuzzQuestion(f *testing.F) {
	for _, q := range []string{"web:80", "http://web/x", "svc/web", "svc/a/b:http", "[fd00::1]:80", "fd00::1", "10.96.0.20:80", ":", "//", "svc//", "a:b:c", "%zz://", "[::1", "web:99999", "."} {
		f.Add(q, "pod/default/client")
	}
	f.Add("web:80", "lan")
	f.Add("web:80", "pod//")
	f.Add("web:80", "fe80::1%eth0")
	w := world(f, []byte("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.20, ports: [{port: 80}]}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: node1}}\n"))
	f.Fuzz(func(t *testing.T, to, from string) {
		r, err := explain.Explain(w, explain.Query{To: to, From: from})
		var text strings.Builder
		if err == nil {
			r.WriteText(&text)
		}
		if err == nil && r.Verdict == "" || err != nil && err.Error() == "" || err == nil && !strings.Contains(text.String(), "verdict") {
			t.Fatalf("%q from %q: %+v, %v", to, from, r, err)
		}
	})
}
