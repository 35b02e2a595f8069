package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/ipam"
	"minato/internal/model"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, addr(s))
	}
	return out
}

// pool has the addresses from first to last.
func pool(name, first, last string) model.Pool {
	return model.Pool{Name: name, AutoAssign: true, Ranges: []model.AddrRange{{First: addr(first), Last: addr(last)}}}
}

func pools(all ...model.Pool) *model.LoadBalancing {
	return &model.LoadBalancing{Pools: all, Origin: "a test"}
}

// balancer is a Service of type LoadBalancer with one port.
func balancer(name string, edits ...func(*model.Service)) *model.Service {
	s := &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Type: model.TypeLoadBalancer, Proxied: true,
		ClusterIPs: addrs("10.96.0.20"), Ports: []model.Port{{Port: 80, Protocol: model.TCP}}, Selector: "app=" + name,
	}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

func has(list ...string) func(*model.Service) {
	return func(s *model.Service) { s.LoadBalancerAddrs = addrs(list...) }
}

func asks(list ...string) func(*model.Service) {
	return func(s *model.Service) { s.LoadBalancer.Addrs = addrs(list...) }
}

func asksPool(name string) func(*model.Service) {
	return func(s *model.Service) { s.LoadBalancer.Pool = name }
}

func shares(key string) func(*model.Service) {
	return func(s *model.Service) { s.LoadBalancer.Sharing = key }
}

func port(n uint16) func(*model.Service) {
	return func(s *model.Service) { s.Ports = []model.Port{{Port: n, Protocol: model.TCP}} }
}

func created(second int) func(*model.Service) {
	return func(s *model.Service) { s.Created = time.Unix(int64(second), 0) }
}

func dualStack(s *model.Service) { s.ClusterIPs = addrs("10.96.0.20", "fd00:96::20") }

func local(s *model.Service) { s.ExternalTrafficPolicy = model.Local }

func class(name string) func(*model.Service) {
	return func(s *model.Service) { s.LoadBalancer.Class = name }
}

func snapshot(l *model.LoadBalancing, services ...*model.Service) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetLoadBalancing(l)
		e.SetNode(&model.Node{Name: "node1", Addrs: addrs("192.0.2.11"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.64/28")}})
		for _, s := range services {
			e.SetService(s)
		}
	})
}

// given lists who gets what, as "name address,address".
func given(p *ipam.Plan) (all []string) {
	for _, d := range p.Decisions {
		var list []string
		for _, a := range d.Addrs {
			list = append(list, a.String())
		}
		all = append(all, d.Service.Name+" "+strings.Join(list, ","))
	}
	return all
}

func TestWhoGetsWhat(t *testing.T) {
	for _, tt := range []struct {
		name     string
		pools    *model.LoadBalancing
		services []*model.Service
		want     []string
	}{
		{
			"the first address of the first pool that is free", pools(pool("one", "192.0.2.200", "192.0.2.201"), pool("two", "192.0.2.220", "192.0.2.230")),
			[]*model.Service{balancer("a"), balancer("b"), balancer("c")},
			[]string{"a 192.0.2.200", "b 192.0.2.201", "c 192.0.2.220"},
		},
		{
			"what is in the status is kept", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a"), balancer("b", has("192.0.2.200"))},
			[]string{"a 192.0.2.201", "b 192.0.2.200"},
		},
		{
			"what is asked for", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a"), balancer("b", asks("192.0.2.200"))},
			[]string{"a 192.0.2.201", "b 192.0.2.200"},
		},
		{
			"what is asked for instead of what is in the status", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", has("192.0.2.200"), asks("192.0.2.205"))},
			[]string{"a 192.0.2.205"},
		},
		{
			"the older of two that ask for one address", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", asks("192.0.2.205"), created(20)), balancer("b", asks("192.0.2.205"), created(10))},
			[]string{"a ", "b 192.0.2.205"},
		},
		{
			"who has an address, before an older one that asks for it", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", asks("192.0.2.205"), created(10)), balancer("b", has("192.0.2.205"), created(20))},
			[]string{"a ", "b 192.0.2.205"},
		},
		{
			"of the pool that is asked for", pools(pool("one", "192.0.2.200", "192.0.2.210"), pool("two", "192.0.2.220", "192.0.2.230")),
			[]*model.Service{balancer("a", asksPool("two")), balancer("b", asksPool("two"), has("192.0.2.200"))},
			[]string{"a 192.0.2.220", "b 192.0.2.221"},
		},
		{
			"a pool without auto-assign only when it is asked for", pools(model.Pool{Name: "one", Ranges: pool("", "192.0.2.200", "192.0.2.210").Ranges}),
			[]*model.Service{balancer("a"), balancer("b", asksPool("one")), balancer("c", asks("192.0.2.205"))},
			[]string{"a ", "b 192.0.2.200", "c 192.0.2.205"},
		},
		{
			"no pool that is announced by BGP, but what is in the status", pools(model.Pool{Name: "one", Protocol: model.BGP, AutoAssign: true, Ranges: pool("", "192.0.2.200", "192.0.2.210").Ranges}),
			[]*model.Service{balancer("a"), balancer("b", has("192.0.2.200"))},
			[]string{"a ", "b 192.0.2.200"},
		},
		{
			"an address of each family of the Service", pools(pool("four", "192.0.2.200", "192.0.2.210"), pool("six", "2001:db8::200", "2001:db8::210")),
			[]*model.Service{balancer("a", dualStack), balancer("b")},
			[]string{"a 192.0.2.200,2001:db8::200", "b 192.0.2.201"},
		},
		{
			"one family where no pool has the other", pools(pool("four", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", dualStack)},
			[]string{"a 192.0.2.200"},
		},
		{
			"neither nodes' nor pods' addresses", pools(pool("one", "192.0.2.10", "192.0.2.12"), pool("two", "192.0.2.63", "192.0.2.80")),
			[]*model.Service{balancer("a"), balancer("b"), balancer("c"), balancer("d")},
			[]string{"a 192.0.2.10", "b 192.0.2.12", "c 192.0.2.63", "d 192.0.2.80"},
		},
		{
			"nothing that the network itself uses", &model.LoadBalancing{
				Pools: []model.Pool{pool("one", "192.0.2.0", "192.0.2.2"), pool("two", "192.0.2.254", "192.0.2.255")}, Taken: addrs("192.0.2.1"),
				Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			},
			[]*model.Service{balancer("a"), balancer("b"), balancer("c")},
			[]string{"a 192.0.2.2", "b 192.0.2.254", "c "},
		},
		{
			"no buggy addresses where they are to be avoided", pools(model.Pool{
				Name: "one", AutoAssign: true, AvoidBuggyIPs: true, Ranges: pool("", "192.0.1.254", "192.0.2.1").Ranges,
			}),
			[]*model.Service{balancer("a"), balancer("b")},
			[]string{"a 192.0.1.254", "b 192.0.2.1"},
		},
		{
			"nothing that is an externalIP", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a"), {
				Name:      model.ServiceName{Namespace: "default", Name: "x"},
				Frontends: []model.Frontend{{Addr: netip.MustParseAddrPort("192.0.2.200:80"), Kind: model.ExternalIP}},
			}},
			[]string{"a 192.0.2.201"},
		},
		{
			"nothing for another class, nor its address to others", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a"), balancer("b", class("example.com/theirs"), has("192.0.2.200")), balancer("c", class(ipam.Class))},
			[]string{"a 192.0.2.201", "c 192.0.2.202"},
		},
		{
			"one address for those that share it", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", shares("key")), balancer("b", shares("key"), port(81)), balancer("c", shares("other"), port(82)), balancer("d", port(83))},
			[]string{"a 192.0.2.200", "b 192.0.2.200", "c 192.0.2.201", "d 192.0.2.202"},
		},
		{
			"no shared address for those that have a port in common", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", shares("key")), balancer("b", shares("key"))},
			[]string{"a 192.0.2.200", "b 192.0.2.201"},
		},
		{
			"no shared address where all traffic goes to one node, and it has to be another one", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", shares("key"), local), balancer("b", shares("key"), port(81), local), balancer("c", shares("key"), port(82))},
			[]string{"a 192.0.2.200", "b 192.0.2.201", "c 192.0.2.202"},
		},
		{
			"what it has, for a Service whose request cannot be read", pools(pool("one", "192.0.2.200", "192.0.2.210")),
			[]*model.Service{balancer("a", func(s *model.Service) { s.LoadBalancer.Problem = "bad" }, has("192.0.2.200")), balancer("b")},
			[]string{"a 192.0.2.200", "b 192.0.2.201"},
		},
		{
			"what it has, while no configuration can be read", &model.LoadBalancing{Problem: "line 1: bad", Origin: "a test"},
			[]*model.Service{balancer("a", has("192.0.2.200")), balancer("b")},
			[]string{"a 192.0.2.200", "b "},
		},
		{
			"nothing any more, once there are no pools", pools(),
			[]*model.Service{balancer("a", has("192.0.2.200")), balancer("b")},
			[]string{"a "},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, given(ipam.Allocate(snapshot(tt.pools, tt.services...), nil))); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestWhyNot(t *testing.T) {
	one := pool("one", "192.0.2.200", "192.0.2.201")
	bgp := model.Pool{Name: "far", Protocol: model.BGP, AutoAssign: true, Ranges: pool("", "198.51.100.1", "198.51.100.9").Ranges}
	full := []*model.Service{balancer("x", has("192.0.2.200")), balancer("y", has("192.0.2.201"))}
	for _, tt := range []struct {
		name  string
		pools *model.LoadBalancing
		svc   *model.Service
		want  string
	}{
		{"all are taken", pools(one), balancer("a"), "no available IPs: add a range to a pool (there is 192.0.2.200-192.0.2.201), or delete a Service that has one"},
		{"all of its pool are taken", pools(one), balancer("a", asksPool("one")), `no available IPs in pool "one": add a range to it (it has 192.0.2.200-192.0.2.201), or delete a Service that has one`},
		{"no such pool", pools(one), balancer("a", asksPool("two")), `unknown pool "two": there is "one"`},
		{"a pool of BGP", pools(one, bgp), balancer("a", asksPool("far")), `pool "far" has protocol bgp, which is not served yet: ask for another pool`},
		{"outside every pool", pools(one), balancer("a", asks("192.0.2.9")), `"192.0.2.9" is not allowed in config: ask for an address of 192.0.2.200-192.0.2.201, or add it to a pool`},
		{
			"somebody else's", pools(one), balancer("a", asks("192.0.2.200")), `can't change sharing key for "192.0.2.200", address also in use by default/x: ` +
				"choose another address, or give both Services the same annotation metallb.universe.tf/allow-shared-ip",
		},
		{"a node's", pools(pool("all", "192.0.2.0", "192.0.2.255")), balancer("a", asks("192.0.2.11")), `"192.0.2.11" is used by node node1: choose another address`},
		{
			"a pod's", pools(pool("all", "192.0.2.0", "192.0.2.255")), balancer("a", asks("192.0.2.70")),
			`"192.0.2.70" is in the range of pods of node node1: take that range out of pool "all"`,
		},
		{"of another pool than asked for", pools(one, bgp), balancer("a", asks("192.0.2.200"), asksPool("far")), `"192.0.2.200" is in pool "one", and the Service asks for pool "far"`},
		{"of a family that the Service does not have", pools(one), balancer("x", has("192.0.2.200"), asks("2001:db8::1")), `"2001:db8::1" is not of an IP family of the Service`},
		{"a configuration that cannot be read", &model.LoadBalancing{Origin: "ConfigMap a/b", Problem: "line 3: bad"}, balancer("a"), "there are no pools, because of an error in ConfigMap a/b: line 3: bad"},
		{"a request that cannot be read", pools(one), balancer("a", func(s *model.Service) { s.LoadBalancer.Problem = "bad" }), "bad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			services := append(slices.Clone(full), tt.svc)
			p := ipam.Allocate(snapshot(tt.pools, services...), nil)
			i := slices.IndexFunc(p.Decisions, func(d ipam.Decision) bool { return d.Service == tt.svc.Name })
			if got := p.Decisions[i].Problem; got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestNothingIsDecidedBeforePoolsAreKnownOrWhileAnotherServes(t *testing.T) {
	for name, l := range map[string]*model.LoadBalancing{
		"unknown": nil, "another": {Pools: []model.Pool{pool("one", "192.0.2.200", "192.0.2.201")}, Elsewhere: "MetalLB"},
	} {
		if p := ipam.Allocate(snapshot(l, balancer("a")), nil); p != nil {
			t.Errorf("%s: decided %v", name, p.Decisions)
		}
	}
}

func TestWhatWasWrittenCountsBeforeTheSnapshotShowsIt(t *testing.T) {
	s := snapshot(pools(pool("one", "192.0.2.200", "192.0.2.210")), balancer("a"), balancer("b"))
	p := ipam.Allocate(s, ipam.Given{{Namespace: "default", Name: "b"}: addrs("192.0.2.200")})
	if d := cmp.Diff([]string{"a 192.0.2.201", "b 192.0.2.200"}, given(p)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if p.Decisions[1].Changed() {
		t.Error("what was written would be written again")
	}
}

func TestARangeOutsideTheNetworkIsWarnedOf(t *testing.T) {
	l := pools(pool("in", "192.0.2.200", "192.0.2.201"), pool("out", "198.51.100.1", "198.51.100.2"), pool("half", "192.0.2.250", "192.0.3.2"),
		model.Pool{Name: "far", Protocol: model.BGP, Ranges: pool("", "203.0.113.1", "203.0.113.2").Ranges}, pool("six", "2001:db8::1", "2001:db8::2"))
	l.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	var warned []string
	for _, w := range ipam.Allocate(snapshot(l), nil).Warnings {
		var name string
		fmt.Sscanf(w, "pool %q", &name)
		warned = append(warned, name)
	}
	if d := cmp.Diff([]string{"out", "half"}, warned); d != "" {
		t.Errorf("warnings are about (-want +got):\n%s", d)
	}
}

func TestOnlyChangesThatMatterMakeADifference(t *testing.T) {
	base := balancer("a")
	for name, tt := range map[string]struct {
		other *model.Service
		same  bool
	}{
		"other endpoints":    {balancer("a", func(s *model.Service) { s.Slices = []*model.BackendSlice{{Name: "s"}} }), true},
		"an address":         {balancer("a", has("192.0.2.200")), false},
		"a request":          {balancer("a", asks("192.0.2.200")), false},
		"a pool":             {balancer("a", asksPool("one")), false},
		"a sharing key":      {balancer("a", shares("key")), false},
		"a port":             {balancer("a", port(81)), false},
		"a policy":           {balancer("a", local), false},
		"another class":      {balancer("a", class("example.com/theirs")), false},
		"another type":       {balancer("a", func(s *model.Service) { s.Type = model.TypeNodePort }), false},
		"deletion":           {nil, false},
		"an IP family":       {balancer("a", dualStack), false},
		"unreadable request": {balancer("a", func(s *model.Service) { s.LoadBalancer.Problem = "bad" }), false},
	} {
		if got := ipam.Same(base, tt.other); got != tt.same {
			t.Errorf("%s: same is %t", name, got)
		}
	}
	if clusterIP := (&model.Service{}); !ipam.Same(nil, clusterIP) || !ipam.Same(clusterIP, nil) {
		t.Error("a ClusterIP Service matters")
	}
}
