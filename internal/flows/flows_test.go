package flows_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"minato/internal/flows"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/file"
)

func snapshot(t testing.TB) *model.Snapshot {
	t.Helper()
	data, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var objects file.Objects
	if err := objects.Parse("world.yaml", data); err != nil {
		t.Fatal(err)
	}
	b := source.NewBuilder()
	objects.Fill(b)
	return b.Current()
}

var (
	dns    = model.ServiceName{Namespace: "kube-system", Name: "kube-dns"}
	except = map[model.ServiceName]bool{dns: true}
	pods   = map[netip.Addr]string{netip.MustParseAddr("10.244.1.99"): "default/client"}
)

// tracked is written as "tcp CLIENT TO BACKEND SEENAS"; a backend of "-" is none.
func tracked(t testing.TB, s string) flows.Tracked {
	t.Helper()
	f := strings.Fields(s)
	at := func(i int) netip.AddrPort { return netip.MustParseAddrPort(f[i]) }
	x := flows.Tracked{Protocol: map[string]model.Protocol{"tcp": model.TCP, "udp": model.UDP}[f[0]], Client: at(1), To: at(2), State: "established", LeftSeconds: 9}
	x.Backend, x.SeenAs = x.To, x.Client
	if f[3] != "-" {
		x.Backend, x.SeenAs = at(3), at(4)
	}
	return x
}

func TestFlowSaysWhereAConnectionGoesAndWhy(t *testing.T) {
	s := snapshot(t)
	all := flows.New(s, model.ServiceName{}, except, pods)
	for name, c := range map[string]struct{ node, tracked, want string }{
		"a pod by ClusterIP": {"node1", "tcp 10.244.1.99:40000 10.96.0.20:80 10.244.2.5:8080 10.244.1.99:40000",
			"default/client to default/web ClusterIP at default/web-b on node2 seen as 10.244.1.99: inside, policy Cluster, 1 of 2"},
		"the LAN by NodePort": {"node1", "tcp 172.30.0.1:40000 172.30.0.11:30080 10.244.1.5:8080 172.30.0.11:40000",
			" to default/web NodePort at default/web-a on node1 seen as 172.30.0.11: outside, policy Cluster, 1 of 2"},
		"a backend that is not ready any more": {"node1", "tcp 10.244.1.99:40000 10.96.0.20:80 10.244.3.5:8080 10.244.1.99:40000",
			"default/client to default/web ClusterIP at default/web-c on node3 seen as 10.244.1.99: kept from before: its backend is not ready"},
		"a backend that is gone": {"node1", "tcp 10.244.1.99:40000 10.96.0.20:80 10.244.3.9:8080 10.244.1.99:40000",
			"default/client to default/web ClusterIP at  on  seen as 10.244.1.99: kept from before: its backend is no endpoint any more"},
		"session affinity": {"node2", "udp 10.244.2.9:40000 10.96.0.21:53 10.244.2.5:53 10.244.2.9:40000",
			" to default/sticky ClusterIP at default/web-b on node2 seen as 10.244.2.9: inside, policy Cluster, 1 of 1; session affinity 3h0m0s"},
		"what the node answers itself": {"node1", "udp 10.244.1.99:40000 10.96.0.10:53 -",
			"default/client to kube-system/kube-dns ClusterIP at  on  seen as 10.244.1.99: node1 itself answers"},
		"one from before the Service": {"node1", "udp 10.244.1.99:40000 10.96.0.21:53 -",
			"default/client to default/sticky ClusterIP at  on  seen as 10.244.1.99: not translated: it is older than the Service, or its node had not programmed it"},
		"the NodePort of another node, on the way":  {"node1", "tcp 10.244.1.99:40000 172.30.0.12:30080 -", ""},
		"what is translated already, on the way":    {"node2", "tcp 10.244.1.99:40000 10.244.2.5:8080 -", ""},
		"the same port of another protocol":         {"node1", "udp 10.244.1.99:40000 10.96.0.20:80 -", ""},
		"a connection that is of no Service at all": {"node1", "tcp 10.244.1.99:40000 192.0.2.1:80 -", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, ok := all.Of(s.NodeNamed(c.node), tracked(t, c.tracked))
			got := fmt.Sprintf("%s to %s %s at %s on %s seen as %s: %s", f.ClientPod, f.Service, f.Kind, f.BackendPod, f.BackendNode, f.SeenAs, f.Reason)
			if ok != (c.want != "") || ok && got != c.want {
				t.Errorf("\ngot:  %s (%t)\nwant: %s", got, ok, c.want)
			}
		})
	}
}

func TestOnlyTheServiceThatIsAskedFor(t *testing.T) {
	s := snapshot(t)
	x := flows.New(s, model.ServiceName{Namespace: "default", Name: "sticky"}, except, pods)
	for c, want := range map[string]bool{
		"tcp 10.244.1.99:40000 10.96.0.20:80 10.244.2.5:8080 10.244.1.99:40000": false,
		"udp 10.244.1.99:40000 10.96.0.21:53 10.244.2.5:53 10.244.1.99:40000":   true,
	} {
		if _, ok := x.Of(s.NodeNamed("node1"), tracked(t, c)); ok != want {
			t.Errorf("%s: %t", c, ok)
		}
	}
}

func TestFlowAsText(t *testing.T) {
	s := snapshot(t)
	f, _ := flows.New(s, model.ServiceName{}, except, pods).Of(s.NodeNamed("node1"), tracked(t, "tcp 172.30.0.1:40000 172.30.0.11:30080 10.244.1.5:8080 172.30.0.11:40000"))
	f.Event = "new"
	var b strings.Builder
	if err := f.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const want = "new node1 tcp 172.30.0.1:40000 default/web 172.30.0.11:30080 10.244.1.5:8080 default/web-a established 9s outside, policy Cluster, 1 of 2; seen as 172.30.0.11"
	if got := strings.Join(strings.Fields(b.String()), " "); got != want || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

// A node tracks hundreds of thousands of connections.
func BenchmarkOf(b *testing.B) {
	s := snapshot(b)
	x := flows.New(s, model.ServiceName{}, except, pods)
	n, c := s.NodeNamed("node1"), tracked(b, "tcp 10.244.1.99:40000 10.96.0.20:80 10.244.2.5:8080 10.244.1.99:40000")
	b.ReportAllocs()
	for b.Loop() {
		x.Of(n, c)
	}
}
