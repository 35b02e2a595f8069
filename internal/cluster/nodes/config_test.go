//go:build linux

package nodes

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"minato/internal/netns/netnstest"
)

func TestARangeInUseIsRefusedWithItsUser(t *testing.T) {
	for _, tt := range []struct {
		what string
		used [][]string
		want string
	}{
		{"a link's own", [][]string{{"ip", "address", "add", "172.30.0.5/24", "dev", netnstest.HostUplink}},
			"choose another range with --node-cidr: 172.30.0.0/24 is in use by link wan0 (172.30.0.5/24)"},
		{"a link's, wider", [][]string{{"ip", "address", "add", "10.0.0.5/8", "dev", netnstest.HostUplink}},
			"choose another range with --pod-cidr: 10.244.0.0/16 is in use by link wan0 (10.0.0.5/8)"},
		{"a route's", [][]string{{"ip", "route", "add", "10.100.0.0/16", "via", netnstest.InternetAddr}},
			"choose another range with --service-cidr: 10.96.0.0/12 is in use by the route to 10.100.0.0/16 via 198.51.100.2 on link wan0"},
		{"a route's of another table", [][]string{{"ip", "route", "add", "10.244.7.0/24", "dev", netnstest.HostUplink, "table", "52"}},
			"choose another range with --pod-cidr: 10.244.0.0/16 is in use by the route to 10.244.7.0/24 on link wan0"},
		{"unreachable anyway", [][]string{{"ip", "route", "add", "unreachable", "10.0.0.0/8"}}, ""},
		{"a default route's", [][]string{{"ip", "route", "add", "default", "dev", netnstest.HostUplink, "table", "52"}}, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := netnstest.New(t)
			for _, argv := range tt.used {
				netnstest.Run(t, w.Host, argv...)
			}
			c := config(t, w, 1)
			before := netnstest.Dump(t, w.Host)
			host, err := openSpace(w.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			err = c.checkRanges(host)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.Is(err, ErrRangeInUse) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if _, err := Up(t.Context(), c); !errors.Is(err, ErrRangeInUse) {
				t.Errorf("Up: got %v", err)
			}
			expectNothing(t, w, c, before)
		})
	}
}

func TestAnotherInstanceIsNamedAsTheUserOfARange(t *testing.T) {
	w := netnstest.New(t)
	a, b := config(t, w, 1), config(t, w, 1)
	up(t, a)
	want := "choose another range with --node-cidr: 172.30.0.0/24 is in use by link " + HostLink(a.Name) + " (172.30.0.1/24)"
	if _, err := Up(t.Context(), b); !errors.Is(err, ErrRangeInUse) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestAConfigThatContradictsItselfIsRefused(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for want, change := range map[string]func(c *Config){
		"choose an instance name":                          func(c *Config) { c.Name = "Über" },
		"give at least one node":                           func(c *Config) { c.Nodes = nil },
		`choose another node name: "lan" is taken`:         func(c *Config) { c.Nodes[0].Name = "lan" },
		`choose another node name: "node1" is taken`:       func(c *Config) { c.Nodes[1].Name = "node1" },
		"172.30.0.1 belongs to the host":                   func(c *Config) { c.Nodes[1].Addrs[0] = addr("172.30.0.1") },
		"172.30.0.11 belongs to node node1":                func(c *Config) { c.Nodes[1].Addrs[0] = addr("172.30.0.11") },
		"choose an address in 172.30.0.0/24":               func(c *Config) { c.Nodes[1].Addrs[0] = addr("172.30.1.1") },
		"choose a wider range with --pod-cidr":             func(c *Config) { c.Nodes[1].PodCIDRs[0] = prefix("10.245.0.0/24") },
		"overlaps 10.244.0.0/16 of --pod-cidr":             func(c *Config) { c.Families[0].ServiceCIDR = prefix("10.240.0.0/12") },
		"overlaps 10.244.1.0/24 of node node1":             func(c *Config) { c.Nodes[1].PodCIDRs[0] = prefix("10.244.1.128/25") },
		"the host's address 172.31.0.1 is not in":          func(c *Config) { c.Families[0].HostAddr = addr("172.31.0.1") },
		"give --node-cidr as the first address of a range": func(c *Config) { c.Families[0].NodeCIDR = prefix("172.30.0.1/24") },
		"is not of the IP family of 172.30.0.0/24":         func(c *Config) { c.Families[0].PodCIDR = prefix("fd00::/64") },
		"node node1 is the host itself":                    func(c *Config) { c.Nodes[0].Host = true },
	} {
		c := config(t, new(netnstest.World), 2)
		change(&c)
		if err := c.Validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	c := config(t, new(netnstest.World), 2)
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestNamesOfLinksFitAndDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, instance := range []string{"minato", "0", "a", "somewhat", "somewhat-longer-than-that", "somewhat-longer-than-this"} {
		link := HostLink(instance)
		if len(link) > 15 || seen[link] != "" {
			t.Errorf("%s: link %s, taken by %q", instance, link, seen[link])
		}
		seen[link] = instance
	}
	if HostLink("minato") != "minato0" {
		t.Errorf("the default instance has link %s", HostLink("minato"))
	}
}

func TestCandidatesGoRoundOnceAndSkipWhatLooksLikeANetwork(t *testing.T) {
	for _, tt := range []struct {
		pods, after, first, last string
		n                        int
	}{
		{"10.244.1.0/24", "10.244.1.0", "10.244.1.1", "10.244.1.254", 254},
		{"10.244.1.0/24", "10.244.1.7", "10.244.1.8", "10.244.1.7", 254},
		{"10.244.1.0/24", "10.244.1.254", "10.244.1.1", "10.244.1.254", 254},
		{"10.244.0.0/23", "10.244.0.254", "10.244.1.1", "10.244.0.254", 508},
		{"10.244.1.16/30", "10.244.1.16", "10.244.1.17", "10.244.1.18", 2},
	} {
		var got []netip.Addr
		for a := range candidates(netip.MustParsePrefix(tt.pods), netip.MustParseAddr(tt.after)) {
			got = append(got, a)
		}
		if len(got) != tt.n || got[0].String() != tt.first || got[len(got)-1].String() != tt.last {
			t.Errorf("%s after %s: %d addresses %s to %s", tt.pods, tt.after, len(got), got[0], got[len(got)-1])
		}
	}
}
