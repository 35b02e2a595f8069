package health

import (
	"net/netip"
	"testing"

	"minato/internal/model"
)

var (
	node1 = &model.Node{Name: "node1"}
	web   = model.ServiceName{Namespace: "default", Name: "web"}
)

// balanced is a Service with two ports, behind a load balancer that asks at port 30081.
func balanced(edit func(*model.Service), backends ...model.Backend) *model.Service {
	s := &model.Service{Name: web, Proxied: true, Type: model.TypeLoadBalancer, ExternalTrafficPolicy: model.Local, HealthCheckNodePort: 30081,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")},
		Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}, {Name: "https", Protocol: model.TCP, Port: 443}},
		Slices:     []*model.BackendSlice{{Name: "web", Backends: backends}}}
	if edit != nil {
		edit(s)
	}
	return s
}

func backend(addr, node string, edit ...func(*model.Backend)) model.Backend {
	b := model.Backend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP, PortName: "http", NodeName: node, Ready: true, Serving: true}
	for _, e := range edit {
		e(&b)
	}
	return b
}

func https(b *model.Backend)       { b.PortName = "https" }
func notReady(b *model.Backend)    { b.Ready, b.Serving = false, false }
func terminating(b *model.Backend) { b.Ready, b.Terminating = false, true }

func plan(s *model.Service) *Plan {
	return (*Plan)(nil).Next(model.Empty().With(func(e *model.Edit) { e.SetService(s) }).On(node1))
}

func TestCountsReadyAddressesOfTheNode(t *testing.T) {
	for _, c := range []struct {
		name       string
		backends   []model.Backend
		ipv4, ipv6 int
	}{
		{"none", nil, 0, 0},
		{"on another node", []model.Backend{backend("10.244.2.2:8080", "node2")}, 0, 0},
		{"one pod with two ports", []model.Backend{backend("10.244.1.2:8080", "node1"), backend("10.244.1.2:8443", "node1", https)}, 1, 0},
		{"two pods, one for each port", []model.Backend{backend("10.244.1.2:8080", "node1"), backend("10.244.1.3:8443", "node1", https)}, 2, 0},
		{"not ready", []model.Backend{backend("10.244.1.2:8080", "node1", notReady)}, 0, 0},
		{"only terminating", []model.Backend{backend("10.244.1.2:8080", "node1", terminating)}, 0, 0},
		{"one of two terminating", []model.Backend{backend("10.244.1.2:8080", "node1", terminating), backend("10.244.1.3:8080", "node1")}, 1, 0},
		{"of both families", []model.Backend{backend("10.244.1.2:8080", "node1"), backend("[fd00:244:1::2]:8080", "node1"),
			backend("[fd00:244:1::3]:8080", "node1")}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := Check{Service: web, Port: 30081, IPv4: c.ipv4, IPv6: c.ipv6}
			if got := plan(balanced(nil, c.backends...)).Checks[web]; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestOnlyLoadBalancersWithPolicyLocalHaveAPort(t *testing.T) {
	for name, edit := range map[string]func(*model.Service){
		"policy Cluster":    func(s *model.Service) { s.ExternalTrafficPolicy = model.Cluster },
		"node port":         func(s *model.Service) { s.Type = model.TypeNodePort },
		"no port given":     func(s *model.Service) { s.HealthCheckNodePort = 0 },
		"of another proxy":  func(s *model.Service) { s.Proxied = false },
		"headless, no such": func(s *model.Service) { s.Headless, s.Proxied = true, false },
	} {
		if p := plan(balanced(edit, backend("10.244.1.2:8080", "node1"))); len(p.Checks) != 0 {
			t.Errorf("%s: got %v, want no port", name, p.Checks)
		}
	}
}

func TestNextLooksAtWhatDiffers(t *testing.T) {
	snap := model.Empty().With(func(e *model.Edit) { e.SetService(balanced(nil, backend("10.244.1.2:8080", "node1"))) }).On(node1)
	p := (*Plan)(nil).Next(snap)
	other := balanced(func(s *model.Service) { s.Name.Name, s.HealthCheckNodePort = "other", 30082 })
	p = p.Next(snap.With(func(e *model.Edit) { e.SetService(other) }).On(node1))
	if len(p.Checks) != 2 || p.Checks[web].IPv4 != 1 {
		t.Errorf("after another Service came: %v", p.Checks)
	}
	p = p.Next(snap)
	if len(p.Checks) != 1 {
		t.Errorf("after it went: %v", p.Checks)
	}
	if p = p.Next(snap.On(&model.Node{Name: "node2"})); p.Checks[web].IPv4 != 0 {
		t.Errorf("on another node: %v", p.Checks)
	}
}

func TestAnswerIsThatOfKubeProxy(t *testing.T) {
	c := Check{Service: web, Port: 30081, IPv4: 2}
	const body = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": "
	for _, x := range []struct {
		name          string
		ipv6, healthy bool
		want          Answer
	}{
		{"with endpoints", false, true, Answer{200, "2", body + "2,\n\t\"serviceProxyHealthy\": true\n}"}},
		{"without endpoints", true, true, Answer{503, "0", body + "0,\n\t\"serviceProxyHealthy\": true\n}"}},
		{"with a data path that is stuck", false, false, Answer{503, "2", body + "2,\n\t\"serviceProxyHealthy\": false\n}"}},
	} {
		if got := c.Answer(x.ipv6, x.healthy); got != x.want {
			t.Errorf("%s: got %+v, want %+v", x.name, got, x.want)
		}
	}
}
