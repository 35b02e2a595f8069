package source_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
	"minato/internal/source"
)

// newService is a Service with one ClusterIP and, where external is not empty, an external IP.
func newService(name, clusterIP, external string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if external != "" {
		s.Spec.ExternalIPs = []string{external}
	}
	return s
}

// newSlice is an EndpointSlice of ready endpoints.
func newSlice(name, service string, addrs ...string) *discoveryv1.EndpointSlice {
	portName, port := "", int32(8080)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func slice(t testing.TB, s *discoveryv1.EndpointSlice) *source.SliceObject {
	t.Helper()
	o, ok := source.Slice(s)
	if !ok {
		t.Fatalf("slice %s was not converted", s.Name)
	}
	return o
}

// complete makes a Builder that has read every kind of object and found services.
func complete(services ...*source.ServiceObject) *source.Builder {
	b := source.NewBuilder()
	b.Update(func(t *source.Batch) {
		t.ReplaceServices(services)
		t.ReplaceSlices(nil)
		t.ReplaceNodes(nil)
		t.ReplaceNamespaces(nil)
	})
	return b
}

func text(s *model.Snapshot) string {
	var b bytes.Buffer
	s.WriteText(&b)
	return b.String()
}

func web(name string) model.ServiceName { return model.ServiceName{Namespace: "default", Name: name} }

func TestNothingIsShownBeforeEveryKindWasReadOnce(t *testing.T) {
	b := source.NewBuilder()
	changed, cancel := b.Subscribe()
	defer cancel()
	steps := []func(*source.Batch){
		func(t *source.Batch) {
			t.ReplaceServices([]*source.ServiceObject{source.Service(newService("web", "10.96.0.20", ""))})
		},
		func(t *source.Batch) { t.ReplaceNodes(nil) },
		func(t *source.Batch) { t.ReplaceNamespaces([]string{"default"}) },
		func(b *source.Batch) {
			b.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.5"))) // an event is not a list
		},
	}
	for i, step := range steps {
		b.Update(step)
		if s := b.Current(); s.Complete || s.Len() > 0 || s.Revision != 0 || len(changed) > 0 {
			t.Fatalf("after step %d: complete %t, %d Services, revision %d", i, s.Complete, s.Len(), s.Revision)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := b.WaitComplete(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("WaitComplete gave %v", err)
	}
	b.Update(func(b *source.Batch) {
		b.ReplaceSlices([]*source.SliceObject{slice(t, newSlice("web-1", "web", "10.244.1.5"))})
	})
	if err := b.WaitComplete(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := b.Current()
	if !s.Complete || s.Revision != 1 || s.Service(web("web")) == nil || len(s.Service(web("web")).Slices) != 1 || len(changed) != 1 {
		t.Errorf("first snapshot: complete %t, revision %d, notified %d\n%s", s.Complete, s.Revision, len(changed), text(s))
	}
}

func TestAnEmptyClusterIsCompleteToo(t *testing.T) {
	if s := complete().Current(); !s.Complete || s.Revision != 1 {
		t.Errorf("complete %t, revision %d", s.Complete, s.Revision)
	}
}

func TestABatchIsOneRevision(t *testing.T) {
	b := complete()
	before := b.Current().Revision
	b.Update(func(batch *source.Batch) {
		for i := range 10 {
			batch.SetService(source.Service(newService(fmt.Sprint("web-", i), fmt.Sprint("10.96.0.", i+1), "")))
		}
		batch.SetNode(&model.Node{Name: "node1"})
		batch.SetNamespace("default")
	})
	if got := b.Current().Revision; got != before+1 {
		t.Errorf("revision %d after %d", got, before)
	}
}

func TestObjectsThatSayNothingNewMakeNoRevision(t *testing.T) {
	b := complete(source.Service(newService("web", "10.96.0.20", "")))
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	b.Update(func(batch *source.Batch) {
		batch.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.5")))
		batch.SetNode(source.Node(&node))
		batch.SetNamespace("default")
	})
	before := b.Current()
	changed, cancel := b.Subscribe()
	defer cancel()
	<-changed
	annotated := newSlice("web-1", "web", "10.244.1.5")
	annotated.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-01T00:00:00Z"}
	labelled := newService("web", "10.96.0.20", "")
	labelled.Labels = map[string]string{"app": "web"}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}}
	b.Update(func(batch *source.Batch) {
		batch.SetService(source.Service(labelled))
		batch.SetSlice(slice(t, annotated))
		batch.SetNode(source.Node(&node))
		batch.SetNamespace("default")
		batch.DeleteService(web("none"))
		batch.DeleteSlice(source.ObjectName{Namespace: "default", Name: "none"})
		batch.DeleteNode("none")
		batch.DeleteNamespace("none")
	})
	if b.Current() != before || len(changed) > 0 {
		t.Errorf("revision %d, notified %d", b.Current().Revision, len(changed))
	}
}

func TestUnchangedServicesAndSlicesAreShared(t *testing.T) {
	b := complete(source.Service(newService("web", "10.96.0.20", "")), source.Service(newService("other", "10.96.0.21", "")))
	b.Update(func(batch *source.Batch) {
		batch.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.5")))
		batch.SetSlice(slice(t, newSlice("web-2", "web", "10.244.1.6")))
	})
	before := b.Current()
	was := text(before)
	b.Update(func(batch *source.Batch) { batch.SetSlice(slice(t, newSlice("web-2", "web", "10.244.1.7"))) })
	after := b.Current()
	if before.Service(web("other")) != after.Service(web("other")) {
		t.Error("a Service that did not change has another pointer")
	}
	old, new := before.Service(web("web")), after.Service(web("web"))
	if old == new || old.Slices[0] != new.Slices[0] || old.Slices[1] == new.Slices[1] {
		t.Error("of two slices, only the changed one may be new")
	}
	if text(before) != was {
		t.Errorf("a published snapshot changed:\n%s", text(before))
	}
}

func TestSlicesMayComeBeforeTheirServiceAndOutliveIt(t *testing.T) {
	b := complete()
	b.Update(func(batch *source.Batch) { batch.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.5"))) })
	if b.Current().Len() != 0 || b.Current().Revision != 1 {
		t.Fatalf("a slice alone is nothing to publish:\n%s", text(b.Current()))
	}
	set := func(batch *source.Batch) { batch.SetService(source.Service(newService("web", "10.96.0.20", ""))) }
	b.Update(set)
	want := text(b.Current())
	b.Update(func(batch *source.Batch) { batch.DeleteService(web("web")) })
	if b.Current().Len() != 0 {
		t.Fatal("the Service is still there")
	}
	b.Update(set)
	if got := text(b.Current()); got != want || len(b.Current().Service(web("web")).Slices) != 1 {
		t.Errorf("after coming back:\n%s\nbefore:\n%s", got, want)
	}
}

func TestAServiceMayGoAndComeBackInOneBatch(t *testing.T) {
	for range 20 { // maps are walked in random order
		b := complete(source.Service(newService("web", "10.96.0.20", "")))
		b.Update(func(batch *source.Batch) { batch.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.5"))) })
		b.Update(func(batch *source.Batch) {
			batch.DeleteService(web("web"))
			batch.DeleteSlice(source.ObjectName{Namespace: "default", Name: "web-1"})
			batch.SetService(source.Service(newService("web", "10.96.0.21", "")))
		})
		if s := b.Current().Service(web("web")); s == nil || len(s.Slices) != 0 || s.ClusterIPs[0].String() != "10.96.0.21" {
			t.Fatalf("after the batch:\n%s", text(b.Current()))
		}
	}
}

func TestASlowReaderMissesRevisionsButNeverTheNewest(t *testing.T) {
	b := complete()
	changed, cancel := b.Subscribe()
	for i := range 5 {
		b.Update(func(batch *source.Batch) { batch.SetNamespace(fmt.Sprint(i)) })
	}
	<-changed
	if n := len(slices.Collect(b.Current().Namespaces())); n != 5 || len(changed) != 0 {
		t.Errorf("%d namespaces, %d more notifications", n, len(changed))
	}
	cancel()
	b.Update(func(batch *source.Batch) { batch.SetNamespace("more") })
	if len(changed) != 0 {
		t.Error("notified after cancel")
	}
}

// Whatever the order and the batches in which objects come and go, the snapshot follows from what is there at last.
func TestTheOrderOfEventsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := complete()
		services := map[string]*corev1.Service{}
		endpoints := map[string]*discoveryv1.EndpointSlice{}
		type published struct {
			s    *model.Snapshot
			text string
		}
		var history []published
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			b.Update(func(batch *source.Batch) {
				for range rapid.IntRange(1, 4).Draw(t, "events") {
					drawEvent(t, batch, services, endpoints)
				}
			})
			history = append(history, published{b.Current(), text(b.Current())})
		}
		fresh := complete()
		fresh.Update(func(batch *source.Batch) {
			for _, s := range services {
				batch.SetService(source.Service(s))
			}
			for _, s := range endpoints {
				o, _ := source.Slice(s)
				batch.SetSlice(o)
			}
		})
		if got, want := text(b.Current()), text(fresh.Current()); got != want {
			t.Fatalf("by events:\n%s\nat once:\n%s", got, want)
		}
		for _, p := range history {
			if got := text(p.s); got != p.text {
				t.Fatalf("revision %d changed after it was published:\n%s\nwas:\n%s", p.s.Revision, got, p.text)
			}
		}
	})
}

func drawEvent(t *rapid.T, batch *source.Batch, services map[string]*corev1.Service, endpoints map[string]*discoveryv1.EndpointSlice) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "service")
	slice := rapid.SampledFrom([]string{"s", "t", "u"}).Draw(t, "slice")
	switch rapid.IntRange(0, 3).Draw(t, "event") {
	case 0:
		// One external IP for all, so that they contend for it; ages repeat, so that names decide too.
		s := newService(name, fmt.Sprint("10.96.0.", rapid.IntRange(1, 3).Draw(t, "ip")), rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.2"}).Draw(t, "external"))
		s.CreationTimestamp = metav1.NewTime(time.Unix(int64(rapid.IntRange(1, 2).Draw(t, "age")), 0))
		services[name] = s
		batch.SetService(source.Service(s))
	case 1:
		delete(services, name)
		batch.DeleteService(web(name))
	case 2:
		s := newSlice(slice, name, fmt.Sprint("10.244.1.", rapid.IntRange(1, 9).Draw(t, "endpoint")))
		endpoints[slice] = s
		o, _ := source.Slice(s)
		batch.SetSlice(o)
	case 3:
		delete(endpoints, slice)
		batch.DeleteSlice(source.ObjectName{Namespace: "default", Name: slice})
	}
}

func TestNoAddressHasTwoServices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := complete()
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			b.Update(func(batch *source.Batch) {
				drawEvent(t, batch, map[string]*corev1.Service{}, map[string]*discoveryv1.EndpointSlice{})
			})
			holder := map[netip.AddrPort]model.ServiceName{}
			for s := range b.Current().Services() {
				for _, f := range s.Frontends {
					if other, taken := holder[f.Addr]; taken {
						t.Fatalf("%s belongs to %s and %s", f.Addr, other, s.Name)
					}
					holder[f.Addr] = s.Name
				}
			}
			for _, c := range b.Current().Conflicts() {
				if holder[c.Addr] != c.Winner {
					t.Fatalf("%+v, and it belongs to %s", c, holder[c.Addr])
				}
			}
		}
	})
}

func TestRefusedExternalIPsAreNotServedAndSaidSo(t *testing.T) {
	b := source.NewBuilder()
	b.Update(func(t *source.Batch) { t.SetPolicy(source.Policy{RefuseExternalIPs: true}) })
	b.Update(func(t *source.Batch) {
		t.ReplaceServices([]*source.ServiceObject{source.Service(newService("web", "10.96.0.1", "192.0.2.1"))})
		t.ReplaceSlices(nil)
		t.ReplaceNodes(nil)
		t.ReplaceNamespaces(nil)
	})
	s := b.Current().Service(web("web"))
	if len(s.Frontends) != 1 || s.Frontends[0].Kind != model.ClusterIP || len(s.Warnings) != 1 {
		t.Errorf("frontends %v, warnings %q", s.Frontends, s.Warnings)
	}
	revision := b.Current().Revision
	b.Update(func(t *source.Batch) { t.SetService(source.Service(newService("web", "10.96.0.1", "192.0.2.1"))) })
	if b.Current().Revision != revision {
		t.Error("the same object again made a revision")
	}
}

func TestNodesAnswerNodePortsWhereThePolicySays(t *testing.T) {
	for _, c := range []struct{ name, ranges, want string }{
		{"no range", "", "[192.0.2.11 172.30.0.11] [fd00::11]"},
		{"ranges of both families", "172.30.0.0/24 fd01::/16", "[172.30.0.11] []"},
		{"of a family without a range all, as by kube-proxy", "172.30.0.0/24", "[172.30.0.11] [fd00::11]"},
	} {
		b := complete()
		b.Update(func(t *source.Batch) {
			var p source.Policy
			for _, r := range strings.Fields(c.ranges) {
				p.NodePorts = append(p.NodePorts, netip.MustParsePrefix(r))
			}
			t.SetPolicy(p)
			t.SetNode(&model.Node{Name: "node1", Addrs: []netip.Addr{
				netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00::11"),
			}})
		})
		n := b.Current().NodeNamed("node1")
		if got := fmt.Sprint(n.NodePortAddrs(false), n.NodePortAddrs(true)); got != c.want {
			t.Errorf("%s: NodePorts are answered at %s, want %s", c.name, got, c.want)
		}
	}
}
