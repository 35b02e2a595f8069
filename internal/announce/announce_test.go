package announce_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"minato/internal/announce"
	"minato/internal/model"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var vip = addr("192.0.2.200")

func pools() *model.LoadBalancing {
	return &model.LoadBalancing{Origin: "a test", Pools: []model.Pool{
		{Name: "near", Ranges: []model.AddrRange{{First: addr("192.0.2.200"), Last: addr("192.0.2.250")}}},
		{Name: "far", Protocol: model.BGP, Ranges: []model.AddrRange{{First: addr("198.51.100.1"), Last: addr("198.51.100.9")}}},
		{Name: "six", Ranges: []model.AddrRange{{First: addr("2001:db8::1"), Last: addr("2001:db8::9")}}},
	}}
}

func node(name string, edits ...func(*model.Node)) *model.Node {
	n := &model.Node{Name: name, Ready: true, Addrs: []netip.Addr{addr("192.0.2.11")}}
	for _, edit := range edits {
		edit(n)
	}
	return n
}

func unready(n *model.Node)  { n.Ready = false }
func excluded(n *model.Node) { n.NoLoadBalancers = true }

// balancer is a Service with an address, and one ready endpoint on each of the nodes.
func balancer(name string, a netip.Addr, nodes ...string) *model.Service {
	s := &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Type: model.TypeLoadBalancer, Proxied: true, LoadBalancerAddrs: []netip.Addr{a},
		Frontends: []model.Frontend{{Addr: netip.AddrPortFrom(a, 80), Protocol: model.TCP, Kind: model.LoadBalancer}},
	}
	endpoint := addr("10.244.0.1")
	if a.Is6() {
		endpoint = addr("fd00:244::1")
	}
	slice := &model.BackendSlice{Name: name}
	for _, n := range nodes {
		slice.Backends = append(slice.Backends, model.Backend{
			Addr: netip.AddrPortFrom(endpoint, 80), Protocol: model.TCP, NodeName: n, Ready: true, Serving: true,
		})
		endpoint = endpoint.Next()
	}
	s.Slices = []*model.BackendSlice{slice}
	return s
}

func local(s *model.Service) *model.Service {
	s.ExternalTrafficPolicy = model.Local
	return s
}

func snapshot(l *model.LoadBalancing, nodes []*model.Node, services ...*model.Service) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetLoadBalancing(l)
		for _, n := range nodes {
			e.SetNode(n)
		}
		for _, s := range services {
			e.SetService(s)
		}
	})
}

func nodes(names ...string) (all []*model.Node) {
	for _, n := range names {
		all = append(all, node(n))
	}
	return all
}

func reasons(a *announce.Announcement) (all []string) {
	for _, l := range a.LeftOut {
		all = append(all, l.Node+": "+l.Reason.String())
	}
	return all
}

// text is a plan as `minato show announcements` prints it.
func text(p *announce.Plan) string {
	var b bytes.Buffer
	p.WriteText(&b)
	return b.String()
}

func TestWhoMayAnnounce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		nodes   []*model.Node
		svc     *model.Service
		node    string
		leftOut []string
	}{
		{"a node without an endpoint, since it forwards to others", nodes("a"), balancer("web", vip, "elsewhere"), "a", nil},
		{
			"with policy Local only a node with a ready endpoint", nodes("a", "b"), local(balancer("web", vip, "b")), "b",
			[]string{"a: externalTrafficPolicy is Local, and no endpoint here is ready"},
		},
		{
			"no node that is not ready", []*model.Node{node("a", unready), node("b")}, balancer("web", vip, "a", "b"), "b",
			[]string{"a: node not Ready"},
		},
		{
			"no node that is excluded", []*model.Node{node("a"), node("b", excluded)}, balancer("web", vip, "a", "b"), "a",
			[]string{"b: label node.kubernetes.io/exclude-from-external-load-balancers"},
		},
		{"an excluded node where all are, as on a single control plane", []*model.Node{node("a", excluded)}, balancer("web", vip, "a"), "a", nil},
		{
			"nobody where only a node that is not ready could", []*model.Node{node("a", unready), node("b")}, local(balancer("web", vip, "a")), "",
			[]string{"a: node not Ready", "b: externalTrafficPolicy is Local, and no endpoint here is ready"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := announce.New(snapshot(pools(), tt.nodes, tt.svc)).Of(vip)
			if a.Node != tt.node || a.Why != 0 {
				t.Errorf("announced by %q (%s), want %q", a.Node, a.Why, tt.node)
			}
			if d := cmp.Diff(tt.leftOut, reasons(a)); d != "" {
				t.Errorf("left out (-want +got):\n%s", d)
			}
		})
	}
}

func TestHeartbeatsOutrankTheNodeObject(t *testing.T) {
	peer := func(name string, s model.PeerState) model.Peer { return model.Peer{NodeName: name, State: s} }
	web := balancer("web", vip, "a", "b", "c")
	first := announce.New(snapshot(pools(), nodes("a", "b", "c"), web)).Of(vip).Node
	others := slices.DeleteFunc([]string{"a", "b", "c"}, func(n string) bool { return n == first })
	for _, tt := range []struct {
		name  string
		peers []model.Peer
		svc   *model.Service
		own   bool // the first by hash announces
		why   string
	}{
		{"one that was never heard counts by its Node", nil, web, true, ""},
		{"one that is heard", []model.Peer{peer(first, model.PeerFit)}, web, true, ""},
		{"one that is silent", []model.Peer{peer(first, model.PeerSilent)}, web, false, "no heartbeat from the node"},
		{"one that is cut off", []model.Peer{peer(first, model.PeerCutOff)}, web, false, "the node hears less than half of the others"},
		{"one that is back for a moment", []model.Peer{peer(first, model.PeerNew)}, web, false, "the node is back for a moment only"},
		{"one that is back, where all are", []model.Peer{peer("a", model.PeerNew), peer("b", model.PeerNew), peer("c", model.PeerNew)}, web, true, ""},
		{"one that is back, where no other has an endpoint", []model.Peer{peer(first, model.PeerNew)}, local(balancer("web", vip, first)), true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := announce.New(snapshot(pools(), nodes("a", "b", "c"), tt.svc).WithPeers(tt.peers)).Of(vip)
			if a.Node == first != tt.own || !tt.own && !slices.Contains(others, a.Node) {
				t.Errorf("announced by %q, the first by hash is %q", a.Node, first)
			}
			if want := first + ": " + tt.why; !tt.own && !slices.Contains(reasons(a), want) {
				t.Errorf("reasons %q, want %q", reasons(a), want)
			}
		})
	}
}

func TestAChangeOfPeersIsPlanned(t *testing.T) {
	s := snapshot(pools(), nodes("a", "b"), balancer("web", vip, "a", "b"))
	before := announce.New(s)
	first := before.Of(vip).Node
	after := before.Next(s.WithPeers([]model.Peer{{NodeName: first, State: model.PeerSilent}}))
	if after.Of(vip).Node == first || after.Next(s).Of(vip).Node != first {
		t.Errorf("announced by %s, without it %s, with it again %s", first, after.Of(vip).Node, after.Next(s).Of(vip).Node)
	}
}

func TestWhyNobodyAnnounces(t *testing.T) {
	unserved := balancer("web", vip, "a")
	unserved.Frontends = nil
	aside := pools()
	aside.Elsewhere = "MetalLB"
	broken := &model.LoadBalancing{Origin: "a test", Problem: "line 1: bad"}
	for _, tt := range []struct {
		name  string
		pools *model.LoadBalancing
		svc   *model.Service
		want  announce.Reason
	}{
		{"no endpoint", pools(), balancer("web", vip), announce.NoEndpoint},
		{"in no pool", pools(), balancer("web", addr("203.0.113.1"), "a"), announce.NoPool},
		{"no pool known yet", nil, balancer("web", vip, "a"), announce.NoPool},
		{"a pool of BGP", pools(), balancer("web", addr("198.51.100.1"), "a"), announce.OtherWay},
		{"MetalLB runs", aside, balancer("web", vip, "a"), announce.Elsewhere},
		{"no frontend in force", pools(), unserved, announce.Unserved},
		{"a configuration that was never good keeps what there is", broken, balancer("web", vip, "a"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := announce.New(snapshot(tt.pools, nodes("a"), tt.svc)).Of(tt.svc.LoadBalancerAddrs[0])
			if a.Why != tt.want || (a.Node == "") != (tt.want != 0) {
				t.Errorf("announced by %q, because: %s; want: %s", a.Node, a.Why, tt.want)
			}
		})
	}
}

func TestANodeWithoutTheFamilyOfAnAddressIsLeftOut(t *testing.T) {
	six := addr("2001:db8::1")
	both := node("b", func(n *model.Node) { n.Addrs = append(n.Addrs, addr("2001:db8::11")) })
	a := announce.New(snapshot(pools(), []*model.Node{node("a"), both}, balancer("web", six, "a"))).Of(six)
	want := []announce.LeftOut{{Node: "a", Reason: announce.NoFamily}}
	if a.Node != "b" || !slices.Equal(a.LeftOut, want) {
		t.Errorf("announced by %q, not by %v", a.Node, a.LeftOut)
	}
}

func TestAServiceOfAnotherTypeHasNothingToAnnounce(t *testing.T) {
	s := balancer("web", vip, "a")
	s.Type = model.TypeNodePort
	if a := announce.New(snapshot(pools(), nodes("a"), s)).Of(vip); a != nil {
		t.Errorf("announced by %s", a.Node)
	}
}

func TestSharedAddressHasOneAnnouncer(t *testing.T) {
	other := balancer("other", vip)
	other.Frontends[0].Addr = netip.AddrPortFrom(vip, 81)
	p := announce.New(snapshot(pools(), nodes("a"), balancer("web", vip, "a"), other))
	if a := p.Of(vip); a.Node != "a" || len(a.Services) != 2 || len(slices.Collect(p.On("a"))) != 1 {
		t.Errorf("announced by %q for %v", a.Node, a.Services)
	}
}

func TestAnnouncersAreThoseOfMetalLB(t *testing.T) {
	// Computed with `printf NODE#ADDRESS | sha256sum`: the lowest sum announces (speaker/layer2_controller.go).
	p := announce.New(snapshot(pools(), nodes("node1", "node2", "node3"), balancer("web", vip, "node1")))
	if got := p.Of(vip).Node; got != "node2" {
		t.Errorf("announced by %s", got)
	}
}

func TestText(t *testing.T) {
	p := announce.New(snapshot(pools(), []*model.Node{node("a"), node("b", unready)}, balancer("web", vip, "a"), balancer("db", addr("203.0.113.1"), "a")))
	want := `ADDRESS       NODE       POOL   SERVICES      NOT BY
192.0.2.200   a          near   default/web   b: node not Ready
203.0.113.1   <nobody>   -      default/db    anybody: no pool has it
`
	if d := cmp.Diff(want, text(p)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// world is drawn at random: nodes of all conditions, and Services that share addresses.
type world struct {
	nodes    []*model.Node
	services []*model.Service
}

func anyWorld(t *rapid.T) (w world) {
	var names []string
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := node(fmt.Sprint("n", i))
		n.Ready, n.NoLoadBalancers = rapid.IntRange(0, 3).Draw(t, "ready") > 0, rapid.IntRange(0, 3).Draw(t, "excluded") == 0
		w.nodes, names = append(w.nodes, n), append(names, n.Name)
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "services") {
		w.services = append(w.services, anyService(t, fmt.Sprint("s", i), names))
	}
	return w
}

func anyService(t *rapid.T, name string, nodes []string) *model.Service {
	a := addr("192.0.2.200")
	for range rapid.IntRange(0, 6).Draw(t, "address") {
		a = a.Next()
	}
	var on []string
	for _, n := range nodes {
		if rapid.Bool().Draw(t, "endpoint") {
			on = append(on, n)
		}
	}
	s := balancer(name, a, on...)
	if rapid.Bool().Draw(t, "local") {
		s.ExternalTrafficPolicy = model.Local
	}
	return s
}

func TestExactlyOneAnnouncerIfAnyIsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		p := announce.New(snapshot(pools(), w.nodes, w.services...))
		for _, a := range p.Announcements() {
			said := len(a.LeftOut)
			if a.Node != "" {
				said++
			}
			if a.Why == 0 && said != len(w.nodes) || a.Why != 0 && a.Node != "" {
				t.Fatalf("%s: by %q (%s), and %d of %d nodes left out", a.Addr, a.Node, a.Why, len(a.LeftOut), len(w.nodes))
			}
			for _, l := range a.LeftOut {
				if l.Reason == announce.NotChosen && a.Node == "" {
					t.Fatalf("%s: %s is fit, and nobody announces", a.Addr, l.Node)
				}
			}
			announcers := 0
			for _, n := range w.nodes {
				if slices.Contains(slices.Collect(p.On(n.Name)), a) {
					announcers++
				}
			}
			if want := map[bool]int{true: 1}[a.Node != ""]; announcers != want {
				t.Fatalf("%s is on %d nodes", a.Addr, announcers)
			}
		}
	})
}

func TestANodeThatGoesMovesOnlyItsOwnAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		for _, n := range w.nodes {
			n.NoLoadBalancers = false // when the last that is not excluded goes, the excluded come in
		}
		if len(w.nodes) == 0 {
			return
		}
		before := announce.New(snapshot(pools(), w.nodes, w.services...))
		gone := *w.nodes[0]
		gone.Ready = false
		after := announce.New(snapshot(pools(), append([]*model.Node{&gone}, w.nodes[1:]...), w.services...))
		for _, a := range before.Announcements() {
			if now := after.Of(a.Addr); a.Node != gone.Name && now.Node != a.Node {
				t.Fatalf("%s moved from %q to %q when %s went", a.Addr, a.Node, now.Node, gone.Name)
			}
		}
	})
}

func TestAPlanComputedFromTheLastIsThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		s := snapshot(pools(), w.nodes, w.services...)
		p := announce.New(s)
		var names []string
		for _, n := range w.nodes {
			names = append(names, n.Name)
		}
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			s = s.With(func(e *model.Edit) {
				name := fmt.Sprint("s", rapid.IntRange(0, 8).Draw(t, "service"))
				switch rapid.IntRange(0, 3).Draw(t, "change") {
				case 0:
					e.DeleteService(model.ServiceName{Namespace: "default", Name: name})
				case 1:
					e.SetNode(node("n0", func(n *model.Node) { n.Ready = rapid.Bool().Draw(t, "ready") }))
				default:
					e.SetService(anyService(t, name, names))
				}
			})
			p = p.Next(s)
			if d := cmp.Diff(text(announce.New(s)), text(p)); d != "" {
				t.Fatalf("-new +next:\n%s", d)
			}
		}
	})
}
