package run

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/internal/model"
	"minato/internal/web"
)

// exposed is a snapshot of two nodes, of which only node2 has a backend, and these Services.
func exposed(services ...*model.Service) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		for _, s := range services {
			e.SetService(s)
		}
		for i, name := range []string{"node1", "node2"} {
			e.SetNode(&model.Node{Name: name, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(11 + i)})}, Ready: true})
		}
	})
}

// service is default/web of one port 80 at these frontends.
func service(frontends ...model.Frontend) *model.Service {
	for i := range frontends {
		frontends[i].Protocol = model.TCP
	}
	return &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: "web"}, Ports: []model.Port{{Protocol: model.TCP, Port: 80}}, Frontends: frontends,
		Slices: []*model.BackendSlice{{Backends: []model.Backend{{
			Addr: netip.MustParseAddrPort("10.244.2.5:8080"), Protocol: model.TCP, NodeName: "node2", Ready: true, Serving: true}}}},
	}
}

func at(kind model.FrontendKind, addr string) model.Frontend {
	return model.Frontend{Addr: netip.MustParseAddrPort(addr), Kind: kind}
}

var (
	clusterIP = at(model.ClusterIP, "10.96.0.20:80")
	nodePort  = at(model.NodePort, "0.0.0.0:30080")
	external  = at(model.ExternalIP, "192.0.2.1:80")
	balancer  = at(model.LoadBalancer, "172.30.0.200:80")
)

func TestServiceURLsPreferTheAddressThatNeedsNoNode(t *testing.T) {
	local := service(clusterIP, nodePort)
	local.ExternalTrafficPolicy = model.Local
	two := service(clusterIP, nodePort)
	two.Ports = append(two.Ports, model.Port{Name: "https", Protocol: model.TCP, Port: 8443}, model.Port{Name: "dns", Protocol: model.UDP, Port: 53})
	two.Frontends = append(two.Frontends,
		model.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30443"), Kind: model.NodePort, Protocol: model.TCP, PortName: "https"},
		model.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30053"), Kind: model.NodePort, Protocol: model.UDP, PortName: "dns"})
	for name, c := range map[string]struct {
		service *model.Service
		want    []string
	}{
		"a node's":                           {service(clusterIP, nodePort), []string{"http://172.30.0.11:30080"}},
		"that of a node which has a backend": {local, []string{"http://172.30.0.12:30080"}},
		"the external one":                   {service(clusterIP, nodePort, external), []string{"http://192.0.2.1:80"}},
		"the load balancer's":                {service(clusterIP, nodePort, external, balancer), []string{"http://172.30.0.200:80"}},
		"one for each port, of its own kind": {two, []string{"http://172.30.0.11:30080", "https://172.30.0.11:30443", "udp://172.30.0.11:30053"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serviceURLs(exposed(c.service), c.service.Name)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestServiceWithoutAnAddressOutsideSaysHowToGetOne(t *testing.T) {
	headless := &model.Service{Name: service().Name, Headless: true}
	alias := &model.Service{Name: service().Name, Type: model.TypeExternalName, ExternalName: "example.com"}
	elsewhere := service(nodePort)
	elsewhere.Name.Namespace = "shop"
	typo := service(nodePort)
	typo.Name.Name = "wed"
	for name, c := range map[string]struct {
		there *model.Service
		want  string
	}{
		"a ClusterIP only":     {service(clusterIP), `make it ` + "`type: NodePort`"},
		"headless":             {headless, "ask for it in a pod"},
		"an alias":             {alias, "go to example.com itself"},
		"in another namespace": {elsewhere, "add -n "},
		"with a name like it":  {typo, "did you mean wed?"},
		"with no name like it": {&model.Service{Name: model.ServiceName{Namespace: "default", Name: "database"}}, "`kubectl get services -A`"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serviceURLs(exposed(c.there), model.ServiceName{Namespace: "default", Name: "web"})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want it to begin with %q", err, c.want)
			}
			if missing := c.there.Name != service().Name; errors.Is(err, web.ErrNotFound) != missing {
				t.Errorf("%v is ErrNotFound: %t, want %t", err, !missing, missing)
			}
		})
	}
}
