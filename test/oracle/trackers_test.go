package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/health"
	"minato/internal/model"
	"minato/internal/source"
	"minato/test/oracle/upstream"
)

// bothKinds is what a Builder knows differently on purpose.
const bothKinds = "an address that is an external IP and a load balancer's is the latter, so that source ranges hold for it"

// trackers have a Builder for each of upstream's, and what both have said.
type trackers struct {
	builders map[int]*source.Builder
	before   map[int]*model.Snapshot // when was last asked what has changed
	excepted int                     // how often bothKinds was met
	counts   map[upstream.TrackedKind]int
}

// What kube-proxy's trackers make of Services and EndpointSlices, and which of them they say have changed, is what a
// Builder makes of them, and which Services differ between its snapshots.
func TestBuilderTracksChangesAsKubeProxyDoes(t *testing.T) {
	all, err := upstream.Trackers(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tr := newTrackers(all)
	for i, u := range all {
		tr.counts[u.Kind]++
		t.Run(fmt.Sprint(u.Kind, " ", i), func(t *testing.T) { tr.check(t, u) })
	}
	t.Log(tr.counts)
	for kind, least := range map[upstream.TrackedKind]int{upstream.Told: 15, upstream.Converted: 30, upstream.Services: 8, upstream.ToldSlice: 60,
		upstream.Changes: 50, upstream.Local: 20} {
		if tr.counts[kind] < least {
			t.Errorf("only %d of %s", tr.counts[kind], kind)
		}
	}
	if tr.excepted == 0 {
		t.Errorf("nothing of upstream is excepted because %s", bothKinds)
	}
}

// newTrackers makes the Builders. The Services of all slices are there from the start.
func newTrackers(all []upstream.Tracked) *trackers {
	tr := &trackers{builders: map[int]*source.Builder{}, before: map[int]*model.Snapshot{}, counts: map[upstream.TrackedKind]int{}}
	for _, u := range all {
		b := tr.builders[u.Tracker]
		if b == nil {
			b = completeBuilder()
			tr.builders[u.Tracker] = b
		}
		if u.Kind == upstream.ToldSlice {
			b.Update(func(batch *source.Batch) { batch.SetService(serviceOf(u.Slice)) })
		}
		tr.before[u.Tracker] = b.Current()
	}
	return tr
}

// serviceOf is the Service of a slice.
func serviceOf(s *discoveryv1.EndpointSlice) *source.ServiceObject {
	meta := metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
	return source.Service(&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "172.30.0.1"}})
}

func (tr *trackers) check(t *testing.T, u upstream.Tracked) {
	b := tr.builders[u.Tracker]
	switch u.Kind {
	case upstream.Converted:
		b := completeBuilder()
		b.Update(func(batch *source.Batch) { batch.SetService(source.Service(u.Service)) })
		tr.sameServices(t, b.Current(), u)
	case upstream.Told:
		b.Update(func(batch *source.Batch) {
			if o := source.Service(u.Service); u.Removed {
				batch.DeleteService(o.Name)
			} else {
				batch.SetService(o)
			}
		})
	case upstream.Services:
		tr.sameUpdates(t, b, u)
		tr.sameServices(t, b.Current(), u)
	case upstream.ToldSlice:
		told(t, b, u)
	case upstream.Applied:
		tr.before[u.Tracker] = b.Current()
	case upstream.Changes:
		tr.sameUpdates(t, b, u)
		sameEndpoints(t, b.Current(), u)
	case upstream.Local:
		sameLocal(t, u)
	}
}

func completeBuilder() *source.Builder {
	b := source.NewBuilder()
	b.Update(func(batch *source.Batch) {
		batch.ReplaceSlices(nil)
		batch.ReplaceServices(nil)
		batch.ReplaceNodes(nil)
		batch.ReplaceNamespaces(nil)
	})
	return b
}

// told gives a slice to the Builder, and it is a change if upstream's is.
func told(t *testing.T, b *source.Builder, u upstream.Tracked) {
	before := b.Current()
	b.Update(func(batch *source.Batch) {
		if o, ok := source.Slice(u.Slice); ok && !u.Removed {
			batch.SetSlice(o)
		} else {
			batch.DeleteSlice(source.ObjectName{Namespace: u.Slice.Namespace, Name: u.Slice.Name})
		}
	})
	if changed := b.Current() != before; changed != u.Changed {
		t.Errorf("slice %s: a change %t, want %t", u.Slice.Name, changed, u.Changed)
	}
}

// sameUpdates compares the Services that are not what they were when was last asked.
func (tr *trackers) sameUpdates(t *testing.T, b *source.Builder, u upstream.Tracked) {
	var got []string
	for _, c := range model.Diff(tr.before[u.Tracker], b.Current()).Services {
		if c.Old != nil && c.Old.Proxied || c.New != nil && c.New.Proxied {
			got = append(got, c.Name.String())
		}
	}
	tr.before[u.Tracker] = b.Current()
	slices.Sort(got)
	slices.Sort(u.Updated)
	if !slices.Equal(got, u.Updated) {
		t.Errorf("changed are %v, want %v", got, u.Updated)
	}
}

func sameLines(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// sameServices compares all that is known of the ports of all Services, in the tracker's family.
func (tr *trackers) sameServices(t *testing.T, s *model.Snapshot, u upstream.Tracked) {
	var got, want []string
	checks := (*health.Plan)(nil).Next(s.On(&model.Node{Name: "here"})).Checks
	for svc := range s.Services() {
		for _, p := range svc.Ports {
			if line, ok := portLine(svc, p, u.Family == "IPv6", checks[svc.Name].Port); ok {
				got = append(got, line)
			}
		}
	}
	for _, p := range u.ServicePorts {
		n := len(p.ExternalIPs)
		p.ExternalIPs = slices.DeleteFunc(p.ExternalIPs, func(a string) bool { return slices.Contains(p.LoadBalancers, a) })
		if len(p.ExternalIPs) < n {
			tr.excepted++
		}
		want = append(want, line(p))
	}
	sameLines(t, got, want)
}

func serviceName(s string) model.ServiceName {
	ns, name, _ := strings.Cut(s, "/")
	return model.ServiceName{Namespace: ns, Name: name}
}

// portLine describes what a Service says of one port in a family; ok is false where it says nothing.
func portLine(s *model.Service, p model.Port, ipv6 bool, check uint16) (text string, ok bool) {
	out := upstream.ServicePort{Service: s.Name.String(), Name: p.Name, Protocol: strings.ToUpper(p.Protocol.String()), Port: int(p.Port),
		HealthCheckNodePort: int(check), Affinity: int(s.SessionAffinity.Seconds()),
		ExternalLocal: s.ExternalTrafficPolicy == model.Local, InternalLocal: s.InternalTrafficPolicy == model.Local}
	for _, f := range s.Frontends {
		if f.PortName != p.Name || f.Protocol != p.Protocol || f.Addr.Addr().Is6() != ipv6 {
			continue
		}
		addr := f.Addr.Addr().String()
		switch f.Kind {
		case model.ClusterIP:
			out.ClusterIP, ok = addr, true
		case model.NodePort:
			out.NodePort = int(f.Addr.Port())
		case model.ExternalIP:
			out.ExternalIPs = append(out.ExternalIPs, addr)
		case model.LoadBalancer:
			out.LoadBalancers = append(out.LoadBalancers, addr)
		}
	}
	for _, r := range s.SourceRanges {
		if r.Addr().Is6() == ipv6 {
			out.SourceRanges = append(out.SourceRanges, r.String())
		}
	}
	return line(out), ok
}

// line is a port as text, with its lists in order.
func line(p upstream.ServicePort) string {
	for _, l := range []*[]string{&p.ExternalIPs, &p.LoadBalancers, &p.SourceRanges} {
		*l = slices.Sorted(slices.Values(*l))
	}
	return fmt.Sprintf("%+v", p)
}

// sameEndpoints compares the endpoints of the Services that have changed.
func sameEndpoints(t *testing.T, s *model.Snapshot, u upstream.Tracked) {
	var got, want []string
	for _, p := range u.EndpointPorts {
		for _, e := range p.Endpoints {
			want = append(want, endpointLine(p.Service, p.Name, protocol(upstream.Flow{Protocol: p.Protocol}), describe(e.Addr, e.Ready, e.Serving, e.Terminating, e.Here)))
		}
	}
	for _, name := range u.Updated {
		for k, all := range joined(s.Service(serviceName(name)), u.Node) {
			for _, e := range all {
				got = append(got, endpointLine(name, k.port, k.protocol, e))
			}
		}
	}
	sameLines(t, got, want)
}

func endpointLine(service, port string, p model.Protocol, endpoint string) string {
	return fmt.Sprintf("%s %s %q %s", service, p, port, endpoint)
}

// sameLocal compares the weight of the node with the number of ready endpoints that kube-proxy finds on it.
func sameLocal(t *testing.T, u upstream.Tracked) {
	services := map[model.ServiceName]*model.Service{}
	for _, p := range u.EndpointPorts {
		name, proto := serviceName(p.Service), protocol(upstream.Flow{Protocol: p.Protocol})
		s := services[name]
		if s == nil {
			s = &model.Service{Name: name, Proxied: true, Type: model.TypeLoadBalancer, ExternalTrafficPolicy: model.Local, HealthCheckNodePort: 30000,
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")}, Slices: []*model.BackendSlice{{}}}
			services[name] = s
		}
		s.Ports = append(s.Ports, model.Port{Name: p.Name, Protocol: proto, Port: 80})
		for _, e := range p.Endpoints {
			b := model.Backend{Addr: netip.MustParseAddrPort(e.Addr), Protocol: proto, PortName: p.Name, NodeName: "elsewhere",
				Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating}
			if e.Here {
				b.NodeName = "here"
			}
			s.Slices[0].Backends = append(s.Slices[0].Backends, b)
		}
	}
	snapshot := model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		for _, s := range services {
			e.SetService(s)
		}
	})
	var got, want []string
	for name, c := range (*health.Plan)(nil).Next(snapshot.On(&model.Node{Name: "here"})).Checks {
		if n := c.IPv4 + c.IPv6; n > 0 {
			got = append(got, name.String()+" "+strconv.Itoa(n))
		}
	}
	for name, n := range u.Local {
		want = append(want, name+" "+strconv.Itoa(n))
	}
	sameLines(t, got, want)
}
