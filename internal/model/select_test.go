package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// The tests write a backend as one word or more: the last byte of its address, then what is true of it.
//
//	3 ready                    10.0.0.3:80, ready and serving, on some other node
//	4 ready here zones=a,b     on the node that selects, hinted for two zones
//	5 serving terminating      being deleted, its readiness probe still passes
//	6                          not ready
func backend(t testing.TB, spec string) Backend {
	t.Helper()
	words := strings.Fields(spec)
	b := Backend{
		Addr:     netip.AddrPortFrom(netip.MustParseAddr("10.0.0."+words[0]), 80),
		Protocol: TCP,
		NodeName: "elsewhere",
	}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "ready":
			b.Ready, b.Serving = true, true
		case "serving":
			b.Serving = true
		case "terminating":
			b.Terminating = true
		case "here":
			b.NodeName = "here"
		case "node":
			b.NodeName = value
		case "zones":
			b.ForZones = strings.Split(value, ",")
		case "nodes":
			b.ForNodes = strings.Split(value, ",")
		case "ipv6":
			b.Addr = netip.AddrPortFrom(netip.MustParseAddr("fd00::"+words[0]), 80)
		case "port":
			b.PortName = value
		case "udp":
			b.Protocol = UDP
		default:
			t.Fatalf("unknown word %q in backend %q", w, spec)
		}
	}
	return b
}

func service(t testing.TB, internal, external TrafficPolicy, specs ...string) *Service {
	t.Helper()
	sl := &BackendSlice{Name: "web-1"}
	for _, s := range specs {
		sl.Backends = append(sl.Backends, backend(t, s))
	}
	return &Service{Proxied: true, InternalTrafficPolicy: internal, ExternalTrafficPolicy: external, Slices: []*BackendSlice{sl}}
}

var (
	atClusterIP = Frontend{Addr: netip.MustParseAddrPort("10.96.0.10:80"), Protocol: TCP, Kind: ClusterIP}
	atNodePort  = Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30080"), Protocol: TCP, Kind: NodePort}
)

// outcome is a Selection in short: the verdict, and the last bytes of the chosen addresses.
func outcome(sel Selection) string {
	parts := []string{sel.Verdict.String()}
	for _, b := range sel.Backends {
		a := b.Addr.Addr().AsSlice()
		parts = append(parts, fmt.Sprint(a[len(a)-1]))
	}
	return strings.Join(parts, " ")
}

// The cases that kube-proxy's own test of endpoint categories has (k8s.io/kubernetes/pkg/proxy/topology_test.go).
// Its Cluster set is what a NodePort gives to packets from inside, whatever the policies; its Local set is what a
// frontend of policy Local gives.
func TestSelectAgreesWithKubeProxy(t *testing.T) {
	zoned := []string{"3 ready zones=a", "4 ready zones=b", "5 ready zones=c", "6 ready zones=a"}
	zonedHere := []string{"3 ready here zones=a", "4 ready here zones=b", "5 ready zones=c", "6 ready zones=a"}
	hinted := []string{"3 ready zones=a nodes=n1", "4 ready zones=b nodes=n2", "5 ready zones=c nodes=n3", "6 ready zones=a nodes=n4"}
	for _, c := range []struct {
		name               string
		node, zone         string // node "" is "here"
		internal, external TrafficPolicy
		backends           []string
		cluster            string // NodePort, from inside
		clusterIP          string // empty: the same as cluster
		outside            string // NodePort, from outside; empty: the same as cluster
	}{
		{name: "zone hints on all backends, some for this zone: only those", zone: "a",
			backends: zoned, cluster: "forward 3 6"},
		{name: "external Local ignores zone hints among its own backends", zone: "a", external: Local,
			backends: zonedHere, cluster: "forward 3 6", outside: "forward 3 4"},
		{name: "internal Local ignores zone hints among its own backends", zone: "a", internal: Local,
			backends: zonedHere, cluster: "forward 3 6", clusterIP: "forward 3 4"},
		{name: "a node without a zone uses all", backends: []string{"3 ready zones=a"}, cluster: "forward 3"},
		{name: "a node with an empty zone uses all", zone: "", backends: zoned, cluster: "forward 3 4 5 6"},
		{name: "no backend is hinted for this zone: all", zone: "b", backends: []string{"3 ready zones=a"}, cluster: "forward 3"},
		{name: "an unready backend of this zone stays out", zone: "a",
			backends: []string{"3 ready zones=a", "4 ready zones=b", "5 ready zones=c", "6 zones=a"}, cluster: "forward 3"},
		{name: "only unready backends are hinted for this zone: all ready ones", zone: "a",
			backends: []string{"3 zones=a", "4 ready zones=b", "5 ready zones=c", "6 zones=a"}, cluster: "forward 4 5"},
		{name: "one ready backend has no hint: hints do not count", zone: "a",
			backends: []string{"3 ready zones=a", "4 ready zones=b", "5 ready", "6 ready zones=a"}, cluster: "forward 3 4 5 6"},
		{name: "a backend may be hinted for several zones", zone: "c",
			backends: []string{"3 ready zones=a,b,c", "4 ready zones=b,c", "5 ready zones=b,d", "6 ready zones=c"}, cluster: "forward 3 4 6"},
		{name: "zone hints count where there are no node hints", node: "n1", zone: "a",
			backends: zoned, cluster: "forward 3 6"},
		{name: "node hints go before zone hints", node: "n1", zone: "a", backends: hinted, cluster: "forward 3"},
		{name: "one ready backend without any hint: all", node: "n1", zone: "a",
			backends: []string{"3 ready zones=a nodes=n1", "4 ready", "5 ready zones=c nodes=n3", "6 ready zones=a nodes=n4"}, cluster: "forward 3 4 5 6"},
		{name: "no backend is hinted for this node: its zone", node: "n0", zone: "a", backends: hinted, cluster: "forward 3 6"},
		{name: "zone hints and external Local choose apart", zone: "a", external: Local,
			backends: []string{"3 ready here zones=a", "4 ready here zones=b", "5 ready zones=a", "6 ready zones=b"},
			cluster:  "forward 3 5", outside: "forward 3 4"},
		{name: "internal Local without any backend", internal: Local, cluster: "reject"},
		{name: "internal Local, all backends elsewhere", internal: Local,
			backends: []string{"3 ready", "4 ready"}, cluster: "forward 3 4", clusterIP: "drop"},
		{name: "internal Local, all backends here", internal: Local,
			backends: []string{"3 ready here", "4 ready here"}, cluster: "forward 3 4"},
		{name: "internal Local, some backends here", internal: Local,
			backends: []string{"3 ready here", "4 ready"}, cluster: "forward 3 4", clusterIP: "forward 3"},
		{name: "no backend is ready", backends: []string{"3", "4"}, cluster: "reject"},
		{name: "some backends are ready", backends: []string{"3", "4 ready"}, cluster: "forward 4"},
		{name: "all terminate and still serve: they are used",
			backends: []string{"3 serving terminating here", "4 serving terminating"}, cluster: "forward 3 4"},
		{name: "internal Local, external Cluster", internal: Local,
			backends: []string{"3 ready here", "4 ready"}, cluster: "forward 3 4", clusterIP: "forward 3", outside: "forward 3 4"},
		{name: "internal Cluster, external Local", external: Local,
			backends: []string{"3 ready here", "4 ready"}, cluster: "forward 3 4", outside: "forward 3"},
		{name: "both Local", internal: Local, external: Local,
			backends: []string{"3 ready here", "4 ready"}, cluster: "forward 3 4", clusterIP: "forward 3", outside: "forward 3"},
		{name: "both Local, all elsewhere", internal: Local, external: Local,
			backends: []string{"3 ready", "4 ready"}, cluster: "forward 3 4", clusterIP: "drop", outside: "drop"},
		{name: "both Local, all elsewhere and terminating", internal: Local, external: Local,
			backends: []string{"3 serving terminating", "4 serving terminating"}, cluster: "forward 3 4", clusterIP: "drop", outside: "drop"},
		{name: "each set falls back to terminating backends for itself", external: Local,
			backends: []string{"3 ready", "4 here", "5 serving terminating here", "6 serving terminating"},
			cluster:  "forward 3", outside: "forward 5"},
		{name: "external Local does not matter at the ClusterIP", external: Local,
			backends: []string{"3 ready", "4 ready here"}, cluster: "forward 3 4", outside: "forward 4"},
		{name: "internal Local at the ClusterIP alone", internal: Local,
			backends: []string{"3 ready", "4 ready here"}, cluster: "forward 3 4", clusterIP: "forward 4"},
		{name: "no backends", cluster: "reject"},
		{name: "one backend, not ready, not serving, not terminating", zone: "a", backends: []string{"3"}, cluster: "reject"},
		{name: "terminating and no longer serving is never used", backends: []string{"3 terminating"}, cluster: "reject"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service(t, c.internal, c.external, c.backends...)
			n := &Node{Name: c.node, Zone: c.zone}
			if n.Name == "" {
				n.Name = "here"
			}
			check := func(f Frontend, scope Scope, want string) {
				t.Helper()
				if want == "" {
					want = c.cluster
				}
				if got := outcome(Select(s, f, n, scope)); got != want {
					t.Errorf("%s from %s: %s, want %s", f.Kind, scope, got, want)
				}
			}
			check(atNodePort, Inside, c.cluster)
			check(atClusterIP, Inside, c.clusterIP)
			check(atClusterIP, Outside, c.clusterIP)
			check(atNodePort, Outside, c.outside)
		})
	}
}

func TestSelectGivesAReasonForEveryBackendLeftOut(t *testing.T) {
	n := &Node{Name: "here", Zone: "a"}
	for _, c := range []struct {
		name     string
		frontend Frontend
		scope    Scope
		service  *Service
		want     string // verdict and chosen, then what is left out and why
	}{
		{"not ready", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready", "4"),
			"forward 3; 4 not ready"},
		{"terminating while others are ready", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready", "4 serving terminating", "5 terminating"),
			"forward 3; 4 terminating, and others are ready; 5 terminating and no longer serving"},
		{"fallback", atClusterIP, Inside, service(t, Cluster, Cluster, "3", "4 serving terminating", "5 terminating"),
			"forward 4 by fallback; 3 not ready; 5 terminating and no longer serving"},
		{"Local", atNodePort, Outside, service(t, Cluster, Local, "3 ready here", "4 ready"),
			"forward 3; 4 on another node, and the traffic policy is Local"},
		{"Local and none here", atNodePort, Outside, service(t, Cluster, Local, "3 here", "4 ready"),
			"drop; 3 not ready; 4 on another node, and the traffic policy is Local"},
		{"zone", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready zones=a", "4 ready zones=b", "5 zones=a"),
			"forward 3; 4 hinted for another zone; 5 not ready"},
		{"node", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready nodes=here", "4 ready nodes=there"),
			"forward 3; 4 hinted for another node"},
		{"family", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready", "4 ready ipv6"),
			"forward 3; 4 of the other IP family"},
		{"listed twice", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready", "3 ready"),
			"forward 3; 3 listed twice"},
		{"an address that a new pod has while the old one terminates", atClusterIP, Inside,
			service(t, Cluster, Cluster, "3 serving terminating node=old", "3 ready node=new"),
			"forward 3; 3 listed twice"},
		{"ready while terminating, by publishNotReadyAddresses", atClusterIP, Inside, service(t, Cluster, Cluster, "3 ready terminating", "4 ready"),
			"forward 3 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sel := Select(c.service, c.frontend, n, c.scope)
			got := outcome(sel)
			if sel.Fallback {
				got += " by fallback"
			}
			var left []string
			for _, l := range sel.LeftOut {
				a := l.Backend.Addr.Addr().AsSlice()
				left = append(left, fmt.Sprintf("; %d %s", a[len(a)-1], l.Reason))
			}
			slices.Sort(left)
			if got += strings.Join(left, ""); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSelectPrefersTheRunningPodOfTwoWithOneAddress(t *testing.T) {
	for _, specs := range [][]string{
		{"3 ready node=new", "3 serving terminating node=old"},
		{"3 serving terminating node=old", "3 ready node=new"},
		{"3 node=old", "3 ready node=new"},
	} {
		sel := Select(service(t, Cluster, Cluster, specs...), atClusterIP, &Node{Name: "here"}, Inside)
		if len(sel.Backends) != 1 || sel.Backends[0].NodeName != "new" {
			t.Errorf("of %q, %v was chosen", specs, sel.Backends)
		}
	}
}

func TestSelectJoinsPortsByNameAndProtocol(t *testing.T) {
	s := service(t, Cluster, Cluster, "3 ready port=http", "4 ready port=dns", "5 ready port=dns udp", "6 ready")
	for _, c := range []struct {
		port     string
		protocol Protocol
		want     string
	}{
		{"http", TCP, "forward 3"}, {"dns", TCP, "forward 4"}, {"dns", UDP, "forward 5"}, {"", TCP, "forward 6"},
		{"", SCTP, "reject"}, {"none", TCP, "reject"},
	} {
		f := Frontend{Addr: atClusterIP.Addr, Protocol: c.protocol, PortName: c.port}
		if got := outcome(Select(s, f, &Node{}, Inside)); got != c.want {
			t.Errorf("port %q %s: %s, want %s", c.port, c.protocol, got, c.want)
		}
	}
}

func TestSelectKeepsFamiliesApart(t *testing.T) {
	s := service(t, Cluster, Cluster, "3 ready", "4 ready ipv6")
	v6 := Frontend{Addr: netip.MustParseAddrPort("[fd00:96::10]:80"), Protocol: TCP}
	if got := outcome(Select(s, v6, &Node{}, Inside)); got != "forward 4" {
		t.Errorf("IPv6 frontend: %s, want forward 4", got)
	}
	only4 := service(t, Cluster, Cluster, "3 ready")
	if got := outcome(Select(only4, v6, &Node{}, Inside)); got != "reject" {
		t.Errorf("IPv6 frontend of a Service with IPv4 backends: %s, want reject", got)
	}
}

func TestPolicyInForce(t *testing.T) {
	s := &Service{InternalTrafficPolicy: Local, ExternalTrafficPolicy: Local}
	for _, c := range []struct {
		kind  FrontendKind
		scope Scope
		want  TrafficPolicy
	}{
		{ClusterIP, Inside, Local}, {ClusterIP, Outside, Local},
		{NodePort, Inside, Cluster}, {ExternalIP, Inside, Cluster}, {LoadBalancer, Inside, Cluster},
		{NodePort, Outside, Local}, {ExternalIP, Outside, Local}, {LoadBalancer, Outside, Local},
	} {
		if got := s.Policy(c.kind, c.scope); got != c.want {
			t.Errorf("%s from %s: %s, want %s", c.kind, c.scope, got, c.want)
		}
	}
}
