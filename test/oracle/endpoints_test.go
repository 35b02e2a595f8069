package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/model"
	"minato/internal/source"
	"minato/test/oracle/upstream"
)

func TestSelectAgreesWithTopology(t *testing.T) {
	selections, joins, err := upstream.Endpoints(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d selections, %d joins", len(selections), len(joins))
	if len(selections) < 30 || len(joins) < 30 {
		t.Fatalf("only %d selections and %d joins", len(selections), len(joins))
	}
	for i, s := range selections {
		t.Run(fmt.Sprint("selection ", i), func(t *testing.T) { checkSelection(t, s) })
	}
	for i, j := range joins {
		t.Run(fmt.Sprint("join ", i), func(t *testing.T) { checkJoin(t, j) })
	}
}

func checkSelection(t *testing.T, u upstream.Selection) {
	if !u.NodeHints && slices.ContainsFunc(u.All, func(e upstream.Endpoint) bool { return len(e.Nodes) > 0 }) {
		t.Skip("node hints always count: there is no feature gate to be turned off")
	}
	n := &model.Node{Name: u.Node, Zone: u.Zone}
	if n.Name == "" {
		n.Name = "here"
	}
	sl := &model.BackendSlice{}
	for _, e := range u.All {
		b := model.Backend{Addr: netip.MustParseAddrPort(e.Addr), Protocol: model.TCP, NodeName: "elsewhere",
			Ready: e.Ready, Serving: e.Serving || e.Ready, Terminating: e.Terminating, ForZones: e.Zones, ForNodes: e.Nodes}
		if e.Here {
			b.NodeName = n.Name
		}
		sl.Backends = append(sl.Backends, b)
	}
	s := &model.Service{Proxied: true, ExternalTrafficPolicy: model.Local, Slices: []*model.BackendSlice{sl}}
	f := model.Frontend{Addr: netip.MustParseAddrPort("0.0.0.0:30080"), Protocol: model.TCP, Kind: model.NodePort}
	check := func(scope model.Scope, endpoints []upstream.Endpoint) {
		var got, want []string
		sel := model.Select(s, f, n, scope)
		for _, b := range sel.Backends {
			got = append(got, b.Addr.String())
		}
		for _, e := range endpoints {
			want = append(want, e.Addr)
		}
		slices.Sort(got)
		slices.Sort(want)
		verdict := model.Forward
		if len(want) == 0 && u.Any {
			verdict = model.Drop
		} else if len(want) == 0 {
			verdict = model.Reject
		}
		if !slices.Equal(got, want) || sel.Verdict != verdict {
			t.Errorf("policy %s: %s %v, want %s %v, of %+v", sel.Policy, sel.Verdict, got, verdict, want, u.All)
		}
	}
	if u.UsesCluster {
		check(model.Inside, u.Cluster)
	}
	if u.UsesLocal {
		check(model.Outside, u.Local)
	}
}

// checkJoin gives the slices to a Builder, with a Service that has every port of theirs.
func checkJoin(t *testing.T, u upstream.Join) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: u.Namespace, Name: u.Name}, Spec: corev1.ServiceSpec{ClusterIP: "172.30.0.1"}}
	b := source.NewBuilder()
	b.Update(func(batch *source.Batch) {
		var all []*source.SliceObject
		for _, s := range u.Slices {
			if o, ok := source.Slice(s); ok {
				all = append(all, o)
			}
		}
		batch.ReplaceSlices(all)
		batch.ReplaceServices([]*source.ServiceObject{source.Service(svc)})
		batch.ReplaceNodes(nil)
		batch.ReplaceNamespaces(nil)
	})
	s := b.Current().Service(model.ServiceName{Namespace: u.Namespace, Name: u.Name})
	want := map[portKey][]string{}
	for _, p := range u.Ports {
		k := portKey{p.Name, protocol(upstream.Flow{Protocol: p.Protocol})}
		for _, e := range p.Endpoints {
			want[k] = append(want[k], describe(e.Addr, e.Ready, e.Serving, e.Terminating, e.Here))
		}
	}
	got := joined(s, u.Node)
	for _, m := range []map[portKey][]string{got, want} {
		for k := range m {
			slices.Sort(got[k])
			slices.Sort(want[k])
			if !slices.Equal(got[k], want[k]) {
				t.Errorf("port %v:\n%s\nwant\n%s", k, strings.Join(got[k], "\n"), strings.Join(want[k], "\n"))
			}
		}
	}
}

// portKey joins a port to its endpoints.
type portKey struct {
	port     string
	protocol model.Protocol
}

// joined describes the endpoints of every port of a Service, one of each address.
func joined(s *model.Service, node string) map[portKey][]string {
	got := map[portKey][]string{}
	for backend := range s.AllBackends() {
		k := portKey{backend.PortName, backend.Protocol}
		if backend.Addr.Port() == 0 || got[k] != nil {
			continue // of a slice without ports, which no frontend has; or done
		}
		f := model.Frontend{Addr: netip.AddrPortFrom(backend.Addr.Addr(), 1), Protocol: k.protocol, PortName: k.port}
		sel := model.Select(s, f, nil, model.Inside)
		all := sel.Backends
		for _, l := range sel.LeftOut {
			if l.Reason != model.Duplicate {
				all = append(all, l.Backend)
			}
		}
		for _, o := range all {
			got[k] = append(got[k], describe(o.Addr.String(), o.Ready, o.Serving, o.Terminating, node != "" && o.NodeName == node))
		}
	}
	return got
}

func describe(addr string, ready, serving, terminating, here bool) string {
	return fmt.Sprintf("%s ready=%t serving=%t terminating=%t here=%t", addr, ready, serving || ready, terminating, here)
}
