package run

import (
	"fmt"
	"io"
	"net/netip"

	"minato/internal/announce"
	"minato/internal/instance"
	"minato/internal/ipam"
	"minato/internal/model"
	"minato/internal/source"
)

// The default pool is these addresses of the node network, counted from its own.
const (
	defaultPoolFirst = 200
	defaultPoolLast  = 250
)

// loadBalancerDefaults: a network of the instance's own has room for a pool. On the host's network every address may
// be somebody's, so there a pool must be configured.
func loadBalancerDefaults(c instance.Config) source.LoadBalancerDefaults {
	if c.Host {
		return source.LoadBalancerDefaults{}
	}
	return source.LoadBalancerDefaults{
		Pools:    []model.Pool{{Name: "default", AutoAssign: true, Ranges: []model.AddrRange{defaultRange(c.NodeCIDR)}}},
		Networks: []netip.Prefix{c.NodeCIDR},
		Taken:    []netip.Addr{c.HostAddr()},
	}
}

// defaultRange has the same last octets in every network that is large enough, else the last quarter.
func defaultRange(network netip.Prefix) model.AddrRange {
	first, last := defaultPoolFirst, defaultPoolLast
	if size := 1 << (32 - network.Bits()); last >= size {
		first, last = size*3/4, size-2
	}
	return model.AddrRange{First: nth(network, first), Last: nth(network, last)}
}

// nth is the n-th address of a network, counted from its own. n is less than 256.
func nth(network netip.Prefix, n int) netip.Addr {
	b := network.Masked().Addr().As4()
	b[3] += byte(n)
	return netip.AddrFrom4(b)
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
