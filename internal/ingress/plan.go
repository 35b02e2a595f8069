// Package ingress says which backends an HTTP request may reach: by its host and path, from the Ingresses of minato's
// class. It is a plan: a pure function of a snapshot, in typed data; nothing in it is ever rendered into a
// configuration text.
//
// The rules are those of the Ingress API (k8s.io/api/networking/v1), and ingress-nginx's where the API leaves a
// choice. The host is chosen first: a name before a wildcard, which stands for exactly one label, before rules without
// a host. Then the path: an exact one, then the longest prefix element by element, then the default backend of that
// host's Ingresses. Nothing falls through to another host.
//
// It opens no socket and knows no HTTP: package ingress/proxy does. Which backends are ready is model.Select's
// business.
package ingress

import (
	"maps"
	"slices"
	"strings"

	"minato/internal/model"
)

// Plan is what the proxy of one node should do. It is immutable. New and Next make one.
type Plan struct {
	snapshot *model.Snapshot
	claims   map[string][]*model.Ingress // by host key, the oldest first
	hosts    map[string]*Host            // the same keys
	pools    map[model.ServiceName]map[PoolName]*Pool
	served   int // number of Ingresses
}

// New plans a snapshot, as the snapshot's node sees it.
func New(s *model.Snapshot) *Plan {
	return (&Plan{snapshot: model.Empty()}).Next(s)
}

// Next plans the next snapshot. What is unchanged is shared: a change of endpoints costs the pools of their Service,
// one of an Ingress costs its hosts and a pass over the names of the others.
func (p *Plan) Next(s *model.Snapshot) *Plan {
	n := &Plan{snapshot: s, claims: p.claims, hosts: p.hosts, pools: p.pools, served: p.served}
	changes := model.Diff(p.snapshot, s)
	if len(changes.Ingresses) > 0 {
		n.planHosts(p, changes.Ingresses)
	}
	n.planPools(p, changes)
	return n
}

// planHosts plans the hosts of changed Ingresses anew.
func (p *Plan) planHosts(before *Plan, changes []model.IngressChange) {
	p.claims, p.hosts = maps.Clone(before.claims), maps.Clone(before.hosts)
	if p.claims == nil {
		p.claims, p.hosts = map[string][]*model.Ingress{}, map[string]*Host{}
	}
	dirty := map[string]bool{}
	for _, c := range changes {
		for key := range hostKeys(c.Old) {
			p.claims[key] = slices.DeleteFunc(slices.Clone(p.claims[key]), func(i *model.Ingress) bool { return i == c.Old })
			dirty[key] = true
		}
		for key := range hostKeys(c.New) {
			at := slices.IndexFunc(p.claims[key], c.New.Older)
			if at < 0 {
				at = len(p.claims[key])
			}
			p.claims[key] = slices.Insert(slices.Clone(p.claims[key]), at, c.New)
			dirty[key] = true
		}
		p.served += served(c.New) - served(c.Old)
	}
	for key := range dirty {
		if len(p.claims[key]) == 0 {
			delete(p.claims, key)
			delete(p.hosts, key)
			continue
		}
		p.hosts[key] = planHost(key, p.claims[key])
	}
}

func served(i *model.Ingress) int {
	if i != nil && i.Served {
		return 1
	}
	return 0
}

// planPools plans the pools of changed Services anew. The set of pools differs only where routes do.
func (p *Plan) planPools(before *Plan, c model.Changes) {
	moved := before.snapshot.Node != p.snapshot.Node
	stale := map[model.ServiceName]bool{}
	for _, s := range c.Services {
		stale[s.Name] = before.pools[s.Name] != nil
	}
	p.pools = map[model.ServiceName]map[PoolName]*Pool{}
	want := func(name PoolName) {
		of := p.pools[name.Service]
		if of == nil {
			of = map[PoolName]*Pool{}
			p.pools[name.Service] = of
		}
		switch have := before.pools[name.Service][name]; {
		case of[name] != nil:
		case have != nil && !moved && !stale[name.Service]:
			of[name] = have
		default:
			of[name] = planPool(name, p.snapshot)
		}
	}
	if len(c.Ingresses) > 0 {
		for _, h := range p.hosts {
			h.eachRoute(func(r *Route) { want(r.Pool) })
		}
		return
	}
	for service, pools := range before.pools {
		if !moved && !stale[service] {
			p.pools[service] = pools
			continue
		}
		for name := range pools {
			want(name)
		}
	}
}

func (h *Host) eachRoute(f func(*Route)) {
	for _, r := range h.exact {
		f(r)
	}
	for _, r := range h.prefix {
		f(r)
	}
	if h.Default != nil {
		f(h.Default)
	}
}

// Empty reports whether there is nothing to serve: no Ingress of minato's class.
func (p *Plan) Empty() bool { return p.served == 0 }

// Lookup finds the route of a request, nil when there is none. The host is in lower case without port, the path
// decoded by ParsePath.
func (p *Plan) Lookup(host, path string) *Route {
	if h := p.host(host); h != nil {
		return h.lookup(path)
	}
	return nil
}

// host finds the host whose rules are for a name: its own, those of its wildcard, or those for every host.
func (p *Plan) host(name string) *Host {
	for _, key := range hostOrder(name) {
		if h := p.hosts[key]; h != nil && h.Ruled {
			return h
		}
	}
	return nil
}

// hostOrder is the keys under which a name is looked up, in that order. A name that begins with a dot is none, and
// must not be taken for a wildcard's key.
func hostOrder(name string) [3]string {
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return [3]string{name, name[dot:]}
	}
	if strings.HasPrefix(name, ".") {
		name = ""
	}
	return [3]string{name}
}

// TLS finds the certificate of a name by SNI, nil where no Ingress has one: the name's own, that of its wildcard, or
// that of rules for every host.
func (p *Plan) TLS(name string) *TLS {
	for _, key := range hostOrder(name) {
		if h := p.hosts[key]; h != nil && h.TLS != nil {
			return h.TLS
		}
	}
	return nil
}

// Secure reports whether a name is one that Ingresses have TLS for: itself, or the host whose rules are for it.
func (p *Plan) Secure(name string) bool {
	for _, key := range hostOrder(name) {
		if h := p.hosts[key]; h != nil && (h.TLS != nil || h.Ruled) {
			return h.TLS != nil
		}
	}
	return false
}

// Redirects reports whether a request over plain HTTP for the route is to be sent to HTTPS.
func (p *Plan) Redirects(r *Route, host string) bool {
	return r.Redirect == model.RedirectAlways || r.Redirect == model.RedirectTLSHosts && p.Secure(host)
}

// Pool is the backends of a route, never nil for a route of this plan.
func (p *Plan) Pool(n PoolName) *Pool { return p.pools[n.Service][n] }

// EachPool calls f for every pool, in no order.
func (p *Plan) EachPool(f func(*Pool)) {
	for _, of := range p.pools {
		for _, pool := range of {
			f(pool)
		}
	}
}

// Pools are all pools, by name.
func (p *Plan) Pools() []*Pool {
	var all []*Pool
	p.EachPool(func(pool *Pool) { all = append(all, pool) })
	slices.SortFunc(all, func(a, b *Pool) int { return a.Name.compare(b.Name) })
	return all
}

// Hosts are all hosts: names, then wildcards, then rules for every host.
func (p *Plan) Hosts() []*Host {
	all := slices.Collect(maps.Values(p.hosts))
	rank := func(h *Host) string {
		switch {
		case h.Name == "":
			return "2"
		case strings.HasPrefix(h.Name, "*"):
			return "1" + h.Name
		}
		return "0" + h.Name
	}
	slices.SortFunc(all, func(a, b *Host) int { return strings.Compare(rank(a), rank(b)) })
	return all
}

// Certificates are all that some host uses.
func (p *Plan) Certificates() map[*model.Certificate]bool {
	all := map[*model.Certificate]bool{}
	for _, h := range p.hosts {
		if h.TLS != nil && h.TLS.Certificate != nil {
			all[h.TLS.Certificate] = true
		}
	}
	return all
}

// Problems says what the owner of an Ingress should change, empty when nothing.
func (p *Plan) Problems(n model.IngressName) []string {
	i := p.snapshot.Ingress(n)
	if i == nil {
		return nil
	}
	all := slices.Clone(i.Warnings)
	pools := map[PoolName]bool{}
	for key := range hostKeys(i) {
		h := p.hosts[key]
		for _, l := range h.losses {
			if l.Ingress == n {
				all = append(all, l.Text)
			}
		}
		h.eachRoute(func(r *Route) { pools[r.Pool] = pools[r.Pool] || r.Ingress == n })
	}
	for name, ours := range pools {
		if problem := p.Pool(name).Problem; ours && problem != "" {
			all = append(all, problem)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
