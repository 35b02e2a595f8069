package run

import (
	"net/netip"
	"testing"

	"minato/internal/instance"
)

func TestDefaultPoolHasTheSameLastOctetsWhereTheyFit(t *testing.T) {
	for network, want := range map[string]string{
		"172.30.0.0/24":    "172.30.0.200-172.30.0.250",
		"192.168.3.0/24":   "192.168.3.200-192.168.3.250",
		"172.31.0.0/16":    "172.31.0.200-172.31.0.250",
		"192.168.3.128/25": "192.168.3.224-192.168.3.254",
		"192.168.3.16/28":  "192.168.3.28-192.168.3.30",
	} {
		if got := defaultRange(netip.MustParsePrefix(network)).String(); got != want {
			t.Errorf("%s: %s, want %s", network, got, want)
		}
	}
}

func TestNoDefaultPoolOnTheHostsOwnNetwork(t *testing.T) {
	d := loadBalancerDefaults(instance.Config{Host: true, NodeCIDR: netip.MustParsePrefix("192.168.3.0/24")})
	if len(d.Pools) > 0 {
		t.Errorf("pools: %v", d.Pools)
	}
}
