// Package nftables plans the L4 data path: which address and port, reached from where, goes to which endpoints, or
// is refused or dropped, and which connections get the node's own address as their source.
//
// A plan is a pure function of one Service and one node. It is logical: frontends, pools of endpoints and classes,
// with no ids, no registers and no history. The rules of kube-proxy that it follows are those of
// k8s.io/kubernetes/pkg/proxy/nftables (setupNFTables, syncProxyRules); who may be chosen is model.Select's.
//
// It does not talk to the kernel: package kernel below it assigns ids and programs the maps.
package nftables

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"minato/internal/model"
)

// Key is what a new connection is looked up by.
type Key struct {
	Scope    model.Scope
	Addr     netip.Addr
	Protocol model.Protocol
	Port     uint16
}

// Compare orders keys by address, protocol, port and scope.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Port, o.Port),
		cmp.Compare(k.Scope, o.Scope))
}

// Class is what happens to connections: forwarded to one of N endpoints, refused, or dropped. All frontends of a
// class share one chain of rules.
type Class struct {
	Verdict  model.Verdict
	N        int           // endpoints, with Forward only
	Affinity time.Duration // one client address keeps its endpoint for so long after its last connection; 0: random
}

// PoolKey names a pool within its Service. One Service port has a pool for each traffic policy and family in use.
type PoolKey struct {
	Port     string
	Protocol model.Protocol
	IPv6     bool
	Policy   model.TrafficPolicy
}

// Compare orders pools by port, protocol, family and policy.
func (k PoolKey) Compare(o PoolKey) int {
	return cmp.Or(cmp.Compare(k.Port, o.Port), cmp.Compare(k.Protocol, o.Protocol), boolCompare(k.IPv6, o.IPv6),
		cmp.Compare(k.Policy, o.Policy))
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Pool is the endpoints that its frontends share, and what is done with them.
type Pool struct {
	Key       PoolKey
	Class     Class
	Endpoints []netip.AddrPort // sorted, each once
}

// Frontend is one address and port at which a Service answers packets of one scope.
type Frontend struct {
	Key
	Kind       model.FrontendKind
	Pool       int  // index in ServicePlan.Pools
	Masquerade bool // give connections the node's own address as source
	// Sources are the client ranges that may use the frontend; empty: everyone.
	Sources []netip.Prefix
}

// ServicePlan is what one node does for one Service.
type ServicePlan struct {
	Name      model.ServiceName
	Pools     []Pool     // sorted by key
	Frontends []Frontend // sorted by key
	// Hairpin are endpoints on this node. When one reaches itself its packet needs another source address.
	Hairpin []netip.Addr
	// ClusterIPs are refused at every port that is not a frontend.
	ClusterIPs []netip.Addr
	// LoadBalancers are addresses that answer pings and drop everything else that comes to a port which is no frontend:
	// nobody has them on a link, so packets would go round between router and node.
	LoadBalancers []netip.Addr
	// Pass are ClusterIPs that somebody else serves: this node's DNS server, or another proxy.
	Pass []netip.Addr
}

// PlanService plans one Service on a node. It returns nil when the node does nothing for it. With except its
// frontends are left out, because something on the node itself answers at their addresses.
func PlanService(s *model.Service, n *model.Node, except bool) *ServicePlan {
	if s == nil || s.Type == model.TypeExternalName || s.Headless {
		return nil
	}
	if except || !s.Proxied {
		if len(s.ClusterIPs) == 0 {
			return nil
		}
		return &ServicePlan{Name: s.Name, Pass: sortedAddrs(s.ClusterIPs)}
	}
	b := builder{s: s, n: n, plan: &ServicePlan{Name: s.Name}, pools: map[PoolKey]*Pool{}}
	for _, f := range s.Frontends {
		b.frontend(f)
	}
	return b.finish()
}

type builder struct {
	s     *model.Service
	n     *model.Node
	plan  *ServicePlan
	pools map[PoolKey]*Pool
	keys  []PoolKey // of plan.Frontends, in their order
	local []netip.Addr
}

// frontend adds f in both scopes; a NodePort at every address of the node.
func (b *builder) frontend(f model.Frontend) {
	addrs := []netip.Addr{f.Addr.Addr()}
	if f.Kind == model.NodePort {
		addrs = b.n.NodePortAddrs(f.Addr.Addr().Is6())
	}
	for _, scope := range []model.Scope{model.Outside, model.Inside} {
		pool := b.pool(f, scope)
		for _, a := range addrs {
			b.plan.Frontends = append(b.plan.Frontends, Frontend{
				Key:        Key{scope, a, f.Protocol, f.Addr.Port()},
				Kind:       f.Kind,
				Pool:       len(b.keys),
				Masquerade: pool.Class.Verdict == model.Forward && masquerade(b.s, f.Kind, scope),
				Sources:    sources(b.s, f, b.n),
			})
			b.keys = append(b.keys, pool.Key)
		}
	}
	switch f.Kind {
	case model.ClusterIP:
		b.plan.ClusterIPs = append(b.plan.ClusterIPs, f.Addr.Addr())
	case model.LoadBalancer:
		b.plan.LoadBalancers = append(b.plan.LoadBalancers, f.Addr.Addr())
	}
}

// pool finds the pool for packets of a scope. Select depends on the frontend by its port, family and policy only.
func (b *builder) pool(f model.Frontend, scope model.Scope) *Pool {
	key := PoolKey{f.PortName, f.Protocol, f.Addr.Addr().Is6(), b.s.Policy(f.Kind, scope)}
	if p := b.pools[key]; p != nil {
		return p
	}
	sel := model.Select(b.s, f, b.n, scope)
	p := &Pool{Key: key, Class: Class{Verdict: sel.Verdict}}
	if sel.Verdict == model.Forward {
		p.Class.N, p.Class.Affinity = len(sel.Backends), b.s.SessionAffinity
	}
	for _, be := range sel.Backends {
		p.Endpoints = append(p.Endpoints, be.Addr)
		if be.NodeName == b.n.Name {
			b.local = append(b.local, be.Addr.Addr())
		}
	}
	b.pools[key] = p
	return p
}

// masquerade: connections from outside to a ClusterIP, so that replies come back this way; to an external frontend
// with policy Cluster always; with policy Local never, which keeps the client's address.
func masquerade(s *model.Service, k model.FrontendKind, scope model.Scope) bool {
	if k.External() {
		return s.ExternalTrafficPolicy == model.Cluster
	}
	return scope == model.Outside
}

// sources: spec.loadBalancerSourceRanges holds for load balancer addresses only, and a range of everything is none.
// Where the node itself is in range, so is the frontend's own address, from which the node talks to it if it has it.
func sources(s *model.Service, f model.Frontend, n *model.Node) []netip.Prefix {
	if f.Kind != model.LoadBalancer {
		return nil
	}
	var out []netip.Prefix
	self := false
	for _, p := range s.SourceRanges {
		if p.Addr().Is6() != f.Addr.Addr().Is6() {
			continue
		}
		if p.Bits() == 0 {
			return nil
		}
		self = self || slices.ContainsFunc(n.Addrs, p.Contains)
		out = append(out, p.Masked())
	}
	if self {
		out = append(out, netip.PrefixFrom(f.Addr.Addr(), f.Addr.Addr().BitLen()))
	}
	return distinct(out)
}

// finish sorts, and turns pool keys into indexes. Of two frontends with one key the first is kept.
func (b *builder) finish() *ServicePlan {
	p := b.plan
	if len(p.Frontends) == 0 {
		return nil
	}
	for _, pool := range b.pools {
		p.Pools = append(p.Pools, *pool)
	}
	slices.SortFunc(p.Pools, func(a, b Pool) int { return a.Key.Compare(b.Key) })
	for i := range p.Frontends {
		f := &p.Frontends[i]
		f.Pool, _ = slices.BinarySearchFunc(p.Pools, b.keys[f.Pool], func(p Pool, k PoolKey) int { return p.Key.Compare(k) })
	}
	slices.SortStableFunc(p.Frontends, func(a, b Frontend) int { return a.Key.Compare(b.Key) })
	p.Frontends = slices.CompactFunc(p.Frontends, func(a, b Frontend) bool { return a.Key == b.Key })
	p.ClusterIPs = sortedAddrs(p.ClusterIPs)
	p.LoadBalancers = sortedAddrs(p.LoadBalancers)
	p.Hairpin = sortedAddrs(b.local)
	return p
}

func sortedAddrs(in []netip.Addr) []netip.Addr {
	out := slices.Clone(in)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Frontend finds the frontend with a key, and its pool.
func (p *ServicePlan) Frontend(k Key) (Frontend, *Pool, bool) {
	if p == nil {
		return Frontend{}, nil, false
	}
	i, ok := slices.BinarySearchFunc(p.Frontends, k, func(f Frontend, k Key) int { return f.Key.Compare(k) })
	if !ok {
		return Frontend{}, nil, false
	}
	return p.Frontends[i], &p.Pools[p.Frontends[i].Pool], true
}
