package instance

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func temp(t *testing.T) Instance {
	t.Helper()
	dir := t.TempDir()
	i := Instance{Name: "t", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
	if err := i.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	return i
}

func complete(t *testing.T, c Config, n int) Config {
	t.Helper()
	c, err := c.Complete(n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaultsAreThoseOfTheDocumentation(t *testing.T) {
	dual, err := ParseFamilies("dual")
	if err != nil {
		t.Fatal(err)
	}
	c := complete(t, Config{Families: dual}, DefaultNodes)
	if len(c.Nodes) != 3 || c.Nodes[2].Name != "node3" {
		t.Errorf("nodes %v", c.Nodes)
	}
	for _, want := range []struct {
		got  any
		text string
	}{
		{c.Nodes[0].Addrs, "[172.30.0.11 fd00:172:30::11]"},
		{c.Nodes[2].Addrs, "[172.30.0.13 fd00:172:30::13]"},
		{c.HostAddrs(), "[172.30.0.1 fd00:172:30::1]"},
		{c.NodePodCIDRs(0), "[10.244.1.0/24 fd00:10:244:1::/64]"},
		{c.NodePodCIDRs(2), "[10.244.3.0/24 fd00:10:244:3::/64]"},
		{c.DNSAddrs(), "[10.96.0.10 fd00:10:96::a]"},
		{c.Families[1].APIServiceAddr(), "fd00:10:96::1"},
	} {
		if got := fmt.Sprint(want.got); got != want.text {
			t.Errorf("got %s, want %s", got, want.text)
		}
	}
}

func TestAnInstanceIsOfIPv4UnlessAskedOtherwise(t *testing.T) {
	if c := complete(t, Config{}, 1); len(c.Families) != 1 || c.HasIPv6() || c.Nodes[0].Addrs[0].String() != "172.30.0.11" {
		t.Errorf("%+v", c)
	}
}

func TestLoadBalancersHaveTheSameLastOctetsWhereTheyFit(t *testing.T) {
	for network, want := range map[string]string{
		"172.30.0.0/24":    "172.30.0.200-172.30.0.250",
		"192.168.3.0/24":   "192.168.3.200-192.168.3.250",
		"172.31.0.0/16":    "172.31.0.200-172.31.0.250",
		"192.168.3.128/25": "192.168.3.224-192.168.3.254",
		"fd00:172:30::/64": "fd00:172:30::200-fd00:172:30::250",
		"fd00::/116":       "fd00::200-fd00::250",
		"192.168.3.16/28":  "192.168.3.28-192.168.3.30",
	} {
		p := netip.MustParsePrefix(network)
		first, last := Family{IPv6: p.Addr().Is6(), NodeCIDR: p}.LoadBalancerRange()
		if got := first.String() + "-" + last.String(); got != want {
			t.Errorf("%s: %s, want %s", network, got, want)
		}
	}
}

func TestRangesGoToTheirFamily(t *testing.T) {
	for name, tt := range map[string]struct {
		family, given, want string
	}{
		"one of each":             {"dual", "fd01::/64 10.1.0.0/24", "[10.1.0.0/24 fd01::/64]"},
		"the other keeps its own": {"dual", "fd01::/64", "[172.30.0.0/24 fd01::/64]"},
		"two of one":              {"dual", "10.1.0.0/24 10.2.0.0/24", "give --node-cidr one range of each IP family"},
		"none of it":              {"ipv4", "fd01::/64", "give --ip-family dual too"},
	} {
		t.Run(name, func(t *testing.T) {
			families, err := ParseFamilies(tt.family)
			if err != nil {
				t.Fatal(err)
			}
			var given []netip.Prefix
			for _, text := range strings.Fields(tt.given) {
				given = append(given, netip.MustParsePrefix(text))
			}
			err = SetRanges(families, "node-cidr", given, func(f *Family) *netip.Prefix { return &f.NodeCIDR })
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprint(complete(t, Config{Families: families}, 1).NodeCIDRs())
			}
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestNodesWithoutAddressGetTheNextFreeOne(t *testing.T) {
	c := complete(t, Config{Nodes: []Node{{Name: "a", Addrs: addrs("172.30.0.11")}, {Name: "b"}, {Name: "c"}}}, 0)
	if c.Nodes[1].Addrs[0].String() != "172.30.0.12" || c.Nodes[2].Addrs[0].String() != "172.30.0.13" {
		t.Errorf("nodes %v", c.Nodes)
	}
}

func TestBadConfigurationsSayWhatToDo(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, tt := range map[string]struct {
		c    Config
		n    int
		want string
	}{
		"no node":              {Config{}, 0, "--nodes 1"},
		"ranges overlap":       {Config{Families: []Family{{PodCIDR: prefix("10.96.0.0/16")}}}, 1, "choose ranges apart"},
		"too small":            {Config{Families: []Family{{PodCIDR: prefix("10.1.0.0/25")}}}, 1, "--pod-cidr an IPv4 range of /24"},
		"no room for the pods": {Config{Families: []Family{{PodCIDR: prefix("10.1.0.0/23")}}}, 3, "larger range"},
		"address outside":      {Config{Nodes: []Node{{"a", addrs("192.168.0.1")}}}, 0, "inside --node-cidr"},
		"address of the host":  {Config{Nodes: []Node{{"a", addrs("172.30.0.1")}}}, 0, "belongs to the host"},
		"two of one family":    {Config{Nodes: []Node{{"a", addrs("172.30.0.11", "172.30.0.12")}}}, 0, "one address of each IP family"},
		"too small for IPv6":   {Config{Families: []Family{{IPv6: true, PodCIDR: prefix("fd00::/80")}}}, 1, "an IPv6 range of /64"},
		"two of one name":      {Config{Nodes: []Node{{Name: "a"}, {Name: "a"}}}, 0, "name each node once"},
		"bad name":             {Config{Nodes: []Node{{Name: "A_b"}}}, 0, "no node name"},
		"the bridge's name":    {Config{Nodes: []Node{{Name: "lan"}}}, 0, "no node name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tt.c.Complete(tt.n); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something with %q", err, tt.want)
			}
		})
	}
}

func TestNodesMayBeNamedByTheirAddress(t *testing.T) {
	c := Config{Families: []Family{{NodeCIDR: netip.MustParsePrefix("192.168.0.0/24")}}, Nodes: []Node{{"192.168.0.11", addrs("192.168.0.11")}}}
	complete(t, c, 0)
}

func TestNamesOfInstances(t *testing.T) {
	for name, ok := range map[string]bool{"minato": true, "a-1": true, "": false, "A": false, "a/b": false, "-a": false, strings.Repeat("a", 33): false} {
		if _, err := New(name, ""); (err == nil) != ok {
			t.Errorf("New(%q): %v", name, err)
		}
	}
}

func TestConfigurationSurvives(t *testing.T) {
	i := temp(t)
	if _, ok, err := i.Load(); ok || err != nil {
		t.Fatalf("a new instance has a configuration (%v)", err)
	}
	want := complete(t, Config{UpstreamDNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}}, 2)
	if err := i.Save(want); err != nil {
		t.Fatal(err)
	}
	got, ok, err := i.Load()
	if err != nil || !ok || got.Changed(want) != "" || got.UpstreamDNS[0].String() != "192.0.2.53:53" {
		t.Errorf("got %+v, %v, %v", got, ok, err)
	}
}

func TestStateOfANewerProgramIsRefused(t *testing.T) {
	i := Instance{Name: "x", StateDir: t.TempDir()}
	newer := fmt.Sprintf(`{"version": %d, "somethingNew": true}`, StateVersion+1)
	if err := os.WriteFile(i.configFile(), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := i.Load(); !errors.Is(err, ErrNewer) || !strings.HasPrefix(err.Error(), "use a newer minato") {
		t.Error(err)
	}
}

func TestChangedNamesTheFlag(t *testing.T) {
	a, b := complete(t, Config{}, 1), complete(t, Config{}, 2)
	if got := a.Changed(b); got != "--nodes/--node" {
		t.Errorf("got %q", got)
	}
	b = a
	b.Families = []Family{b.Families[0]}
	b.Families[0].ServiceCIDR = netip.MustParsePrefix("10.112.0.0/12")
	if got := a.Changed(b); got != "--service-cidr" {
		t.Errorf("got %q", got)
	}
}

func TestTheLockIsForOne(t *testing.T) {
	i := temp(t)
	unlock, err := i.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Lock(); !errors.Is(err, ErrRunning) {
		t.Errorf("second lock: %v, want ErrRunning", err)
	}
	if pid, err := i.Holder(); err != nil || pid != os.Getpid() {
		t.Errorf("holder %d, %v", pid, err)
	}
	unlock()
	unlock, err = i.Lock()
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	unlock()
}

func TestAForeignFolderIsNeitherUsedNorRemoved(t *testing.T) {
	i := Instance{Name: "t", StateDir: t.TempDir(), RunDir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(i.StateDir, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := i.MakeDirs(); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("MakeDirs: %v", err)
	}
	if err := i.Remove(); err == nil {
		t.Error("removed a folder that is no instance's")
	}
}

func TestRemoveTakesAnInstanceAwayAtAnyPointOfItsLife(t *testing.T) {
	i := temp(t)
	for range 2 {
		if err := i.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.MakeDirs(); err != nil {
		t.Fatal(err)
	}
	if err := i.Save(Config{}); err != nil {
		t.Fatal(err)
	}
	if err := i.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(i.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}
