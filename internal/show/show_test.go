package show_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/internal/dataplane/nftables"
	"minato/internal/dns"
	"minato/internal/ingress"
	"minato/internal/model"
	"minato/internal/show"
)

func name(n string) model.ServiceName { return model.ServiceName{Namespace: "default", Name: n} }

func service(n, ip, pod string) *model.Service {
	return &model.Service{
		Name: name(n), Type: model.TypeLoadBalancer, Proxied: true, ClusterIPs: []netip.Addr{netip.MustParseAddr(ip)},
		Ports: []model.Port{{Protocol: model.TCP, Port: 80, TargetPort: "8080"}},
		Frontends: []model.Frontend{
			{Addr: netip.MustParseAddrPort(ip + ":80"), Protocol: model.TCP, Kind: model.ClusterIP},
			{Addr: netip.MustParseAddrPort("172.30.0.2" + ip[len(ip)-2:] + ":80"), Protocol: model.TCP, Kind: model.LoadBalancer},
		},
		LoadBalancerAddrs: []netip.Addr{netip.MustParseAddr("172.30.0.2" + ip[len(ip)-2:])},
		Slices: []*model.BackendSlice{{Name: n, Backends: []model.Backend{
			{Addr: netip.MustParseAddrPort(pod + ":8080"), Protocol: model.TCP, Target: "default/" + n, NodeName: "node1", Ready: true, Serving: true},
		}}},
	}
}

// world is a node with two Services, web and other, and an Ingress to each.
func world(t *testing.T) show.World {
	t.Helper()
	node := &model.Node{Name: "node1", Addrs: []netip.Addr{netip.MustParseAddr("172.30.0.11")}, Ready: true}
	s := model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetNode(node)
		e.SetService(service("web", "10.96.0.10", "10.244.1.2"))
		e.SetService(service("other", "10.96.0.11", "10.244.1.3"))
		for _, n := range []string{"web", "other"} {
			e.SetIngress(&model.Ingress{Name: model.IngressName{Namespace: "default", Name: n}, Served: true, Rules: []model.IngressRule{{
				Host: n + ".example.com", Paths: []model.IngressPath{{Path: "/", Type: model.PathPrefix, Backend: model.IngressBackend{Service: n, Port: 80}}}}}})
		}
	}).On(node)
	table, err := dns.NewTable(dns.Zone{Domain: "cluster.local", Reverse: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.53")}, Service: model.ServiceName{Namespace: "kube-system", Name: "kube-dns"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Publish(t.Context(), s, func(model.ServiceName) bool { return false }); err != nil {
		t.Fatal(err)
	}
	return show.World{Snapshot: s, Ingress: ingress.New(s), Names: table.View(), Connections: counted}
}

// counted is what a kernel might have counted.
func counted(only model.ServiceName) (rows []show.Connection, err error) {
	for _, n := range []string{"other", "web"} {
		if (only == model.ServiceName{} || only == name(n)) {
			rows = append(rows, show.Connection{Service: name(n).String(), Protocol: "tcp", Family: "IPv4", Policy: "Cluster", Forwarded: 3})
		}
	}
	return rows, nil
}

func TestConnectionsAreShownByEndpoint(t *testing.T) {
	two := uint64(2)
	v, err := show.Of("connections", show.World{Connections: func(model.ServiceName) ([]show.Connection, error) {
		return []show.Connection{{Service: "default/web", Port: "http", Protocol: "tcp", Family: "IPv4", Policy: "Cluster", Forwarded: 5, Refused: 1,
			Endpoints: []show.EndpointConnection{{Address: netip.MustParseAddrPort("10.244.1.2:8080"), Forwarded: &two},
				{Address: netip.MustParseAddrPort("10.244.1.3:8080")}}}}, nil
	}}, name("web"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := v.Text(&text); err != nil {
		t.Fatal(err)
	}
	want := `SERVICE             PORT   PROTOCOL   FAMILY   POLICY    FORWARDED     REFUSED   DROPPED
default/web         http   tcp        IPv4     Cluster   5             1         0
  10.244.1.2:8080                                        2                       
  10.244.1.3:8080                                        not counted             
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
}

// Where the kernel is not as planned, the plan alone would mislead.
func TestTablesTellInWhatTheKernelDiffers(t *testing.T) {
	w := world(t)
	w.Held = func(k nftables.Key) (nftables.Held, error) {
		h := nftables.Held{Found: true, Masquerade: k.Scope == model.Outside || k.Port != 80 || k.Addr.String()[:3] == "172",
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.1.2:8080")}}
		if k.Addr.String() == "10.96.0.11" { // of other: as if somebody had deleted it
			h = nftables.Held{}
		}
		return h, nil
	}
	for only, want := range map[string]string{"web": "", "other": "the kernel differs: for outside 10.96.0.11:80/tcp of default/other it does not have this address\n"} {
		v, err := show.Of("nftables", w, name(only))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		if err := v.Text(&text); err != nil {
			t.Fatal(err)
		}
		if differs := strings.Contains(text.String(), "the kernel differs"); differs != (want != "") || !strings.Contains(text.String(), want) {
			t.Errorf("%s: %q is not in\n%s", only, want, &text)
		}
	}
}

// Every view tells of both Services, as text and as rows, and of one alone when that is asked for.
func TestEveryViewHasTextAndRowsOfAllOrOfOneService(t *testing.T) {
	w := world(t)
	for view, of := range map[string][2]string{ // what tells of web, and of other
		"services": {"10.96.0.10", "10.96.0.11"}, "frontends": {"10.244.1.2:8080", "10.244.1.3:8080"}, "nftables": {"10.244.1.2:8080", "10.244.1.3:8080"},
		"dns": {"web.default.svc", "other.default.svc"}, "routes": {"default/web", "default/other"}, "announcements": {"default/web", "default/other"},
		"addresses": {}, "connections": {"default/web", "default/other"},
	} {
		t.Run(view, func(t *testing.T) {
			for only, want := range map[model.ServiceName][2]bool{{}: {true, true}, name("web"): {true, false}, name("other"): {false, true}} {
				v, err := show.Of(view, w, only)
				if err != nil {
					t.Fatal(err)
				}
				rows, err := json.Marshal(v.Rows)
				if err != nil {
					t.Fatal(err)
				}
				var text strings.Builder
				if err := v.Text(&text); err != nil || text.Len() == 0 || !strings.HasPrefix(string(rows), "[{") && !strings.HasPrefix(string(rows), "{") {
					t.Fatalf("%v\n%s\n%s", err, &text, rows)
				}
				for i, word := range of {
					if has := strings.Contains(string(rows), word); word != "" && has != want[i] {
						t.Errorf("of %q: rows have %s: %t\n%s", only, word, has, rows)
					}
					if has := strings.Contains(text.String(), strings.TrimSuffix(word, ":8080")); view != "frontends" && word != "" && has != want[i] {
						t.Errorf("of %q: the text has %s: %t\n%s", only, word, has, &text)
					}
				}
			}
		})
	}
	if _, err := show.Of("nothing", w, model.ServiceName{}); !errors.Is(err, show.ErrNoView) {
		t.Errorf("a view that there is not: %v", err)
	}
	if len(show.Views) != 8 {
		t.Errorf("a view is untested: %v", show.Views)
	}
}
