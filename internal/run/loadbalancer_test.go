package run

import (
	"net/netip"
	"testing"

	"minato/internal/instance"
)

func TestNoDefaultPoolOnTheHostsOwnNetwork(t *testing.T) {
	d := loadBalancerDefaults(instance.Config{Host: true, Families: []instance.Family{{NodeCIDR: netip.MustParsePrefix("192.168.3.0/24")}}})
	if len(d.Pools) > 0 {
		t.Errorf("pools: %v", d.Pools)
	}
}
