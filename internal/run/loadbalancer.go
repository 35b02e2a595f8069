package run

import (
	"fmt"
	"io"

	"minato/internal/announce"
	"minato/internal/instance"
	"minato/internal/ipam"
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

// writeAddresses prints which Service has which address, and why not.
func writeAddresses(s *model.Snapshot, w io.Writer) error {
	if l := s.LoadBalancing; l == nil || l.Elsewhere != "" {
		reason := "the configuration has not been read yet"
		if l != nil {
			reason = l.Elsewhere + " serves load balancers"
		}
		_, err := fmt.Fprintln(w, "no address is given: "+reason)
		return err
	}
	if _, err := fmt.Fprintf(w, "pools by %s\n\n", s.LoadBalancing.Origin); err != nil {
		return err
	}
	return ipam.Allocate(s, nil).WriteText(w)
}

// writeAnnouncements prints who announces which address, and why not others.
func writeAnnouncements(s *model.Snapshot, w io.Writer) error { return announce.New(s).WriteText(w) }
