package run

import (
	"minato/internal/instance"
	"minato/internal/model"
	"minato/internal/source"
)

// loadBalancerDefaults: a network of the instance's own has room for a pool. On the host's network every address may
// be somebody's, so there a pool must be configured.
func loadBalancerDefaults(c instance.Config) source.LoadBalancerDefaults {
	if c.Host {
		return source.LoadBalancerDefaults{}
	}
	pool := model.Pool{Name: "default", AutoAssign: true}
	for _, f := range c.Families {
		first, last := f.LoadBalancerRange()
		pool.Ranges = append(pool.Ranges, model.AddrRange{First: first, Last: last})
	}
	return source.LoadBalancerDefaults{Pools: []model.Pool{pool}, Networks: c.NodeCIDRs(), Taken: c.HostAddrs()}
}
