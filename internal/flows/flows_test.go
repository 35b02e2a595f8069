package flows_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// lines prints flows of the world by Text.
func lines(t *testing.T, watch bool, all ...string) []string {
	t.Helper()
	s := snapshot(t)
	x := flows.New(s, model.ServiceName{}, except, pods)
	var b strings.Builder
	text := flows.NewText(&b, watch)
	if watch {
		if err := text.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all {
		f, _ := x.Of(s.NodeNamed("node1"), tracked(t, c))
		if watch {
			f.Event = "new"
		}
		if err := text.Print(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := text.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

const (
	short = "tcp 172.30.0.1:40000 172.30.0.11:30080 10.244.1.5:8080 172.30.0.11:40000"
	long  = "tcp [2001:db8:1111:2222:3333:4444:5555:6666]:40000 172.30.0.11:30080 [2001:db8:1111:2222:3333:4444:5555:7777]:8080 172.30.0.11:40000"
)

func TestFlowAsText(t *testing.T) {
	got := strings.Join(lines(t, false, short), "\n")
	const want = `
NODE   PROTO  CLIENT            SERVICE                        BACKEND                        STATE        LEFT  REASON
node1  tcp    172.30.0.1:40000  default/web 172.30.0.11:30080  10.244.1.5:8080 default/web-a  established    9s  outside, policy Cluster, 1 of 2; seen as 172.30.0.11`
	if d := cmp.Diff(strings.TrimPrefix(want, "\n"), got); d != "" {
		t.Error(d)
	}
}

// starts are where a line's columns begin.
func starts(header string) (at []int) {
	for _, name := range []string{"PROTO", "CLIENT", "SERVICE", "BACKEND", "STATE"} {
		at = append(at, strings.Index(header, name))
	}
	return at
}

// Columns are as wide as what is in them, in a list from the first line on, in a watch from the wider one on.
func TestColumnsHaveRoomForEveryAddress(t *testing.T) {
	cells := func(line string, at []int) (all []string) {
		for i := range at {
			end := len(line)
			if i+1 < len(at) {
				end = at[i+1]
			}
			all = append(all, strings.Fields(line[at[i]:end])[0])
			if line[at[i]-2:at[i]] != "  " {
				t.Errorf("no room before column %d: %s", i, line)
			}
		}
		return all
	}
	want := func(flow string) []string {
		f := strings.Fields(flow)
		return []string{"tcp", f[1], "default/web", f[3], "established"}
	}
	list := lines(t, false, short, long, short)
	for i, flow := range []string{short, long, short} {
		if d := cmp.Diff(want(flow), cells(list[i+1], starts(list[0]))); d != "" {
			t.Error(d)
		}
	}
	watch := lines(t, true, short, long, short)
	if d := cmp.Diff(want(short), cells(watch[1], starts(watch[0]))); d != "" {
		t.Error(d)
	}
	after := []int{strings.Index(watch[2], "tcp"), strings.Index(watch[2], "[2001"), strings.Index(watch[2], "default/web"),
		strings.LastIndex(watch[2], "[2001"), strings.Index(watch[2], "established")}
	if d := cmp.Diff(want(short), cells(watch[3], after)); d != "" {
		t.Error(d)
	}
}

// Of a list without an end not all is held back.
func TestALongListIsPrintedWhileItComes(t *testing.T) {
	s := snapshot(t)
	f, _ := flows.New(s, model.ServiceName{}, except, pods).Of(s.NodeNamed("node1"), tracked(t, short))
	var b strings.Builder
	text := flows.NewText(&b, false)
	for range 1000 {
		if err := text.Print(f); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != 1001 {
		t.Errorf("%d lines before the end of 1001", n)
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
