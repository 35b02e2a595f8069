package nftables_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

var node = &model.Node{Name: "node1", Zone: "a",
	Addrs:    []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("172.30.1.11"), netip.MustParseAddr("fd00:30::11")},
	PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}

// service has one endpoint on each of two nodes.
func service(edit func(*model.Service), frontends ...model.Frontend) *model.Service {
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: "web"}, Proxied: true, Frontends: frontends}
	backend := func(addr, node string) model.Backend {
		return model.Backend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP, PortName: "http", NodeName: node, Ready: true, Serving: true}
	}
	s.Slices = []*model.BackendSlice{{Backends: []model.Backend{backend("10.244.2.6:8080", "node2"), backend("10.244.1.5:8080", "node1")}}}
	if edit != nil {
		edit(s)
	}
	return s
}

func frontend(kind model.FrontendKind, addr string) model.Frontend {
	return model.Frontend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP, Kind: kind, PortName: "http"}
}

func TestPlanService(t *testing.T) {
	none := func(s *model.Service) { s.Slices = nil }
	for _, c := range []struct {
		name    string
		service *model.Service
		except  bool
		want    string
	}{
		{"ClusterIP is masqueraded for clients from outside", service(nil, frontend(model.ClusterIP, "10.96.0.1:80")), false, `
service default/web
  pool http 80/tcp ipv4 Cluster: random over 2
    endpoint 10.244.1.5:8080 probability=0.500 on this node
    endpoint 10.244.2.6:8080 probability=0.500
  frontend outside 10.96.0.1:80/tcp ClusterIP: random over 2 of pool http 80/tcp ipv4 Cluster, masquerade
  frontend inside 10.96.0.1:80/tcp ClusterIP: random over 2 of pool http 80/tcp ipv4 Cluster
  refuse other ports of 10.96.0.1
`},
		{"NodePort is at every address of its family, masqueraded", service(nil, frontend(model.NodePort, "0.0.0.0:30001")), false, `
service default/web
  pool http tcp ipv4 Cluster: random over 2
    endpoint 10.244.1.5:8080 probability=0.500 on this node
    endpoint 10.244.2.6:8080 probability=0.500
  frontend outside 172.30.0.11:30001/tcp NodePort: random over 2 of pool http tcp ipv4 Cluster, masquerade
  frontend inside 172.30.0.11:30001/tcp NodePort: random over 2 of pool http tcp ipv4 Cluster, masquerade
  frontend outside 172.30.1.11:30001/tcp NodePort: random over 2 of pool http tcp ipv4 Cluster, masquerade
  frontend inside 172.30.1.11:30001/tcp NodePort: random over 2 of pool http tcp ipv4 Cluster, masquerade
`},
		{"policy Local gives outside a pool of its own and keeps client addresses",
			service(func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }, frontend(model.ExternalIP, "192.0.2.1:80")), false, `
service default/web
  pool http 80/tcp ipv4 Cluster: random over 2
    endpoint 10.244.1.5:8080 probability=0.500 on this node
    endpoint 10.244.2.6:8080 probability=0.500
  pool http 80/tcp ipv4 Local: random over 1
    endpoint 10.244.1.5:8080 probability=1.000 on this node
  frontend outside 192.0.2.1:80/tcp ExternalIP: random over 1 of pool http 80/tcp ipv4 Local
  frontend inside 192.0.2.1:80/tcp ExternalIP: random over 2 of pool http 80/tcp ipv4 Cluster
`},
		{"without endpoints it refuses", service(none, frontend(model.ClusterIP, "10.96.0.1:80")), false, `
service default/web
  pool http 80/tcp ipv4 Cluster: reject
  frontend outside 10.96.0.1:80/tcp ClusterIP: reject of pool http 80/tcp ipv4 Cluster
  frontend inside 10.96.0.1:80/tcp ClusterIP: reject of pool http 80/tcp ipv4 Cluster
  refuse other ports of 10.96.0.1
`},
		{"the families are apart", service(nil, frontend(model.ClusterIP, "[fd00:96::1]:80")), false, `
service default/web
  pool http 80/tcp ipv6 Cluster: reject
  frontend outside [fd00:96::1]:80/tcp ClusterIP: reject of pool http 80/tcp ipv6 Cluster
  frontend inside [fd00:96::1]:80/tcp ClusterIP: reject of pool http 80/tcp ipv6 Cluster
  refuse other ports of fd00:96::1
`},
		{"affinity and source ranges; where the node is in range the address itself is too",
			service(func(s *model.Service) {
				s.SessionAffinity = 3 * time.Hour
				s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("172.30.0.7/24"), netip.MustParsePrefix("172.30.0.128/25"), netip.MustParsePrefix("fd00::/8")}
			}, frontend(model.LoadBalancer, "192.0.2.1:80")), false, `
service default/web
  pool http 80/tcp ipv4 Cluster: affinity 3h0m0s over 2
    endpoint 10.244.1.5:8080 probability=0.500 on this node
    endpoint 10.244.2.6:8080 probability=0.500
  frontend outside 192.0.2.1:80/tcp LoadBalancer: affinity 3h0m0s over 2 of pool http 80/tcp ipv4 Cluster, masquerade, from [172.30.0.0/24 192.0.2.1/32] only
  frontend inside 192.0.2.1:80/tcp LoadBalancer: affinity 3h0m0s over 2 of pool http 80/tcp ipv4 Cluster, masquerade, from [172.30.0.0/24 192.0.2.1/32] only
  drop other ports of 192.0.2.1, answer its pings
`},
		{"what the node answers itself is left alone",
			service(func(s *model.Service) { s.ClusterIPs = []netip.Addr{netip.MustParseAddr("10.96.0.10")} }, frontend(model.ClusterIP, "10.96.0.10:53")), true, `
service default/web
  leave 10.96.0.10 alone
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			nftables.PlanService(c.service, node, c.except).WriteText(&b)
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingIsPlannedForServicesWithoutProxy(t *testing.T) {
	for name, edit := range map[string]func(*model.Service){
		"headless":     func(s *model.Service) { s.Headless, s.Proxied = true, false },
		"ExternalName": func(s *model.Service) { s.Type = model.TypeExternalName },
	} {
		if p := nftables.PlanService(service(edit, frontend(model.ClusterIP, "10.96.0.1:80")), node, false); p != nil {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}

func TestFrontendsAreFoundByKey(t *testing.T) {
	p := nftables.PlanService(service(nil, frontend(model.ClusterIP, "10.96.0.1:80")), node, false)
	k := nftables.Key{Scope: model.Inside, Addr: netip.MustParseAddr("10.96.0.1"), Protocol: model.TCP, Port: 80}
	if f, pool, ok := p.Frontend(k); !ok || f.Key != k || len(pool.Endpoints) != 2 {
		t.Errorf("got %+v %+v %t", f, pool, ok)
	}
	k.Port = 81
	if _, _, ok := p.Frontend(k); ok {
		t.Error("found a frontend at a port that is none")
	}
}

func TestNodePortsAreAnsweredAtTheChosenAddressesOnly(t *testing.T) {
	n := &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("192.0.2.11")},
		NodePorts: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	s := &model.Service{Name: model.ServiceName{Namespace: "default", Name: "web"}, Proxied: true, Frontends: []model.Frontend{
		{Addr: netip.MustParseAddrPort("0.0.0.0:30001"), Protocol: model.TCP, Kind: model.NodePort},
	}}
	for _, f := range nftables.PlanService(s, n, false).Frontends {
		if f.Addr != n.Addrs[1] {
			t.Errorf("answered at %s", f.Addr)
		}
	}
}
