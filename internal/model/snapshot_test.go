package model

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func name(i int) ServiceName { return ServiceName{"default", fmt.Sprintf("svc-%03d", i)} }

func snapshotOf(n int) *Snapshot {
	return Empty().With(func(e *Edit) {
		for i := range n {
			e.SetService(&Service{Name: name(i)})
		}
	})
}

func TestWithSharesWhatIsUnchanged(t *testing.T) {
	before := snapshotOf(100)
	changed := &Service{Name: name(7)}
	after := before.With(func(e *Edit) { e.SetService(changed) })
	for i := range 100 {
		old, new := before.Service(name(i)), after.Service(name(i))
		if (old == new) != (i != 7) {
			t.Errorf("%s: same pointer %t", name(i), old == new)
		}
	}
	if after.Revision != before.Revision+1 {
		t.Errorf("revision %d after %d", after.Revision, before.Revision)
	}
}

func TestDiffListsWhatDiffers(t *testing.T) {
	before := snapshotOf(10).With(func(e *Edit) { e.SetNamespace("old", true); e.SetNode(&Node{Name: "node1"}) })
	after := before.With(func(e *Edit) {
		e.DeleteService(name(1))
		e.SetService(&Service{Name: name(2)})
		e.SetService(&Service{Name: ServiceName{"default", "new"}})
		e.SetNamespace("old", false)
		e.SetNamespace("new", true)
	})
	c := Diff(before, after)
	var got []string
	for _, s := range c.Services {
		got = append(got, fmt.Sprintf("%s %t>%t", s.Name.Name, s.Old != nil, s.New != nil))
	}
	if want := []string{"new false>true", "svc-001 true>false", "svc-002 true>true"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	if want := []string{"new", "old"}; !slices.Equal(c.Namespaces, want) {
		t.Errorf("namespaces %v, want %v", c.Namespaces, want)
	}
	if c.Nodes {
		t.Error("no node changed")
	}
	if c := Diff(nil, before); len(c.Services) != 10 || !c.Nodes {
		t.Errorf("from nothing, %d Services and nodes %t are new", len(c.Services), c.Nodes)
	}
}

func TestDiffSeesAChangeOfTheNode(t *testing.T) {
	n := &Node{Name: "node1"}
	s := snapshotOf(1)
	if Diff(s.On(n), s.On(n)).Nodes {
		t.Error("the same node is no change")
	}
	if !Diff(s.On(n), s.On(&Node{Name: "node1", Zone: "a"})).Nodes {
		t.Error("another view of the node is a change")
	}
	other := s.With(func(e *Edit) { e.SetNode(&Node{Name: "node2"}) })
	if !Diff(s.On(n), other.On(n)).Nodes {
		t.Error("a new node of the cluster is a change")
	}
}

func TestNodeIsLocalToItsOwnPodsAndAddresses(t *testing.T) {
	n := &Node{Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	for addr, want := range map[string]bool{
		"172.30.0.11": true, "10.244.1.9": true, "127.0.0.1": true, "::1": true,
		"172.30.0.12": false, "10.244.2.9": false, "192.0.2.1": false,
	} {
		if got := n.IsLocal(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %t", addr, got)
		}
	}
}

// world has one of everything that the text form prints.
func world() *Snapshot {
	ap := netip.MustParseAddrPort
	web := &Service{
		Name: ServiceName{"default", "web"}, Type: TypeLoadBalancer, Proxied: true,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.20"), netip.MustParseAddr("fd00:96::20")},
		Ports:      []Port{{Name: "http", Protocol: TCP, Port: 80, TargetPort: "web", NodePort: 30080}},
		Frontends: []Frontend{
			{ap("10.96.0.20:80"), TCP, ClusterIP, "http"}, {ap("[fd00:96::20]:80"), TCP, ClusterIP, "http"},
			{ap("0.0.0.0:30080"), TCP, NodePort, "http"}, {ap("192.0.2.1:80"), TCP, LoadBalancer, "http"},
			{ap("198.51.100.1:80"), TCP, ExternalIP, "http"},
		},
		Slices: []*BackendSlice{{Name: "web-1", Backends: []Backend{
			{Addr: ap("10.244.1.5:8080"), Protocol: TCP, PortName: "http", Target: "default/web-a", NodeName: "node1", Zone: "a",
				ForZones: []string{"a", "b"}, ForNodes: []string{"node1"}, Ready: true, Serving: true},
			{Addr: ap("10.244.2.5:8080"), Protocol: TCP, PortName: "http", Hostname: "web-b", Serving: true, Terminating: true},
			{Addr: ap("10.244.2.6:8080"), Protocol: TCP, PortName: "http"},
			{Addr: ap("10.244.2.7:0"), Ready: true},
		}}},
		Selector: "app=web", InternalTrafficPolicy: Local, ExternalTrafficPolicy: Local, SessionAffinity: 3 * time.Hour,
		SourceRanges: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/8")}, HealthCheckNodePort: 30081, PublishNotReady: true,
		PreferSameZone: true, LoadBalancer: AddressRequest{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		LoadBalancerAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Warnings: []string{"something could not be used"},
	}
	return Empty().With(func(e *Edit) {
		e.SetNode(&Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11")}, Zone: "a", Ready: true,
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
		e.SetNamespace("default", true)
		e.SetService(web)
		e.SetService(&Service{Name: ServiceName{"default", "db"}, Headless: true})
		e.SetService(&Service{Name: ServiceName{"default", "out"}, Type: TypeExternalName, ExternalName: "example.com"})
		e.SetService(&Service{Name: ServiceName{"default", "theirs"}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.30")}})
		e.SetConflicts([]Conflict{{Addr: ap("192.0.2.1:443"), Protocol: TCP, Winner: web.Name, Loser: ServiceName{"other", "web"}}})
	})
}

func TestTextForm(t *testing.T) {
	var got bytes.Buffer
	if err := world().WriteText(&got); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/snapshot.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("text form is\n%s\nwant (go test -update writes it anew)\n%s", &got, want)
	}
}

func TestServicesInGoesOverOneNamespaceAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(rapid.Custom(func(t *rapid.T) ServiceName {
			return ServiceName{rapid.StringMatching(`[ab]{1,2}`).Draw(t, "namespace"), rapid.StringMatching(`[a-c]{1,2}`).Draw(t, "name")}
		})).Draw(t, "names")
		s := Empty().With(func(e *Edit) {
			for _, n := range names {
				e.SetService(&Service{Name: n})
			}
		})
		namespace := rapid.StringMatching(`[ab]{1,2}`).Draw(t, "asked")
		var got, want []ServiceName
		for svc := range s.ServicesIn(namespace) {
			got = append(got, svc.Name)
		}
		for svc := range s.Services() {
			if svc.Name.Namespace == namespace {
				want = append(want, svc.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
