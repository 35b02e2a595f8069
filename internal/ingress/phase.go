package ingress

import (
	"maps"
	"slices"

	"minato/internal/model"
)

// Withdraw is p without what next no longer has: routes, and backends of pools. A pool of which no backend is left
// keeps them all, because those that replace them come with Publish at once. It is for the phase of that name.
func (p *Plan) Withdraw(next *Plan) *Plan {
	out := *p
	if !maps.Equal(p.hosts, next.hosts) {
		out.hosts = make(map[string]*Host, len(p.hosts))
		for key, h := range p.hosts {
			if n := next.hosts[key]; n == h {
				out.hosts[key] = h
			} else if n != nil {
				out.hosts[key] = h.withdraw(n)
			}
		}
	}
	out.pools = maps.Clone(p.pools)
	for service, pools := range p.pools {
		if of := next.pools[service]; of != nil && !maps.Equal(of, pools) {
			out.pools[service] = maps.Clone(pools)
			for name, pool := range pools {
				if n := of[name]; n != nil {
					out.pools[service][name] = pool.withdraw(n)
				}
			}
		}
	}
	return &out
}

func (h *Host) withdraw(next *Host) *Host {
	out := *h
	keep := func(routes, wanted map[string]*Route) map[string]*Route {
		kept := maps.Clone(routes)
		maps.DeleteFunc(kept, func(path string, _ *Route) bool { return wanted[path] == nil })
		return kept
	}
	out.exact, out.prefix = keep(h.exact, next.exact), keep(h.prefix, next.prefix)
	if next.Default == nil {
		out.Default = nil
	}
	return &out
}

func (p *Pool) withdraw(next *Pool) *Pool {
	out := *p
	out.Backends = slices.DeleteFunc(slices.Clone(p.Backends), func(b *model.Backend) bool {
		return !slices.ContainsFunc(next.Backends, func(n *model.Backend) bool { return n.Addr == b.Addr })
	})
	if len(out.Backends) == 0 && len(next.Backends) > 0 {
		return p
	}
	return &out
}

// Hold is p with the pools of held Services as shown has them. A pool that shown does not have is without backends.
func (p *Plan) Hold(held func(model.ServiceName) bool, shown *Plan) *Plan {
	if held == nil {
		return p
	}
	out := *p
	out.pools = maps.Clone(p.pools)
	for service, pools := range p.pools {
		if !held(service) {
			continue
		}
		of := make(map[PoolName]*Pool, len(pools))
		for name, pool := range pools {
			if of[name] = shown.pools[service][name]; of[name] == nil {
				empty := *pool
				empty.Backends = nil
				of[name] = &empty
			}
		}
		out.pools[service] = of
	}
	return &out
}
