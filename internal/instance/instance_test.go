package instance

import (
	"errors"
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
	c := complete(t, Config{}, DefaultNodes)
	if len(c.Nodes) != 3 || c.Nodes[0] != (Node{"node1", netip.MustParseAddr("172.30.0.11")}) || c.Nodes[2].Name != "node3" {
		t.Errorf("nodes %v", c.Nodes)
	}
	for what, got := range map[string]string{
		"172.30.0.1":    c.HostAddr().String(),
		"10.244.1.0/24": c.NodePodCIDR(0).String(),
		"10.244.3.0/24": c.NodePodCIDR(2).String(),
		"10.96.0.10":    c.DNSAddr().String(),
		"10.96.0.1":     c.APIServiceAddr().String(),
	} {
		if got != what {
			t.Errorf("got %s, want %s", got, what)
		}
	}
}

func TestNodesWithoutAddressGetTheNextFreeOne(t *testing.T) {
	c := complete(t, Config{Nodes: []Node{{Name: "a", Addr: netip.MustParseAddr("172.30.0.11")}, {Name: "b"}, {Name: "c"}}}, 0)
	if c.Nodes[1].Addr != netip.MustParseAddr("172.30.0.12") || c.Nodes[2].Addr != netip.MustParseAddr("172.30.0.13") {
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
		"ranges overlap":       {Config{PodCIDR: prefix("10.96.0.0/16")}, 1, "choose ranges apart"},
		"too small":            {Config{PodCIDR: prefix("10.1.0.0/25")}, 1, "--pod-cidr an IPv4 range of /24"},
		"no room for the pods": {Config{PodCIDR: prefix("10.1.0.0/23")}, 3, "larger range"},
		"address outside":      {Config{Nodes: []Node{{"a", netip.MustParseAddr("192.168.0.1")}}}, 0, "inside --node-cidr"},
		"address of the host":  {Config{Nodes: []Node{{"a", netip.MustParseAddr("172.30.0.1")}}}, 0, "belongs to the host"},
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
	c := Config{NodeCIDR: netip.MustParsePrefix("192.168.0.0/24"), Nodes: []Node{{"192.168.0.11", netip.MustParseAddr("192.168.0.11")}}}
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

func TestChangedNamesTheFlag(t *testing.T) {
	a, b := complete(t, Config{}, 1), complete(t, Config{}, 2)
	if got := a.Changed(b); got != "--nodes/--node" {
		t.Errorf("got %q", got)
	}
	b = a
	b.ServiceCIDR = netip.MustParsePrefix("10.112.0.0/12")
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
