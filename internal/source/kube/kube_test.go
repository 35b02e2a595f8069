package kube

import (
	"bytes"
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"minato/internal/model"
	"minato/internal/source"
)

var (
	portName = "http"
	port     = int32(8080)

	web = &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.20", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	db = &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"},
		Spec:       corev1.ServiceSpec{ClusterIP: "None"},
	}
	webSlice = &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}}},
	}
	node1     = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24"}}
	namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
)

// start runs the source until the test ends, and fails the test if it does not end then.
func start(t *testing.T, client *fake.Clientset) *source.Builder {
	t.Helper()
	b := source.NewBuilder()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, client, b) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			buf := make([]byte, 1<<20)
			t.Errorf("Run did not end:\n%s", buf[:runtime.Stack(buf, true)])
		}
	})
	return b
}

// eventually waits for a snapshot of which is says yes.
func eventually(t *testing.T, b *source.Builder, what string, is func(*model.Snapshot) bool) {
	t.Helper()
	changed, cancel := b.Subscribe()
	defer cancel()
	deadline := time.After(20 * time.Second)
	for !is(b.Current()) {
		select {
		case <-changed:
		case <-deadline:
			var text bytes.Buffer
			b.Current().WriteText(&text)
			t.Fatalf("never came: %s; complete %t\n%s", what, b.Current().Complete, &text)
		}
	}
}

func backends(s *model.Snapshot, name string) int {
	svc := s.Service(model.ServiceName{Namespace: "default", Name: name})
	if svc == nil {
		return -1
	}
	n := 0
	for range svc.AllBackends() {
		n++
	}
	return n
}

func TestRunFollowsTheAPI(t *testing.T) {
	client := fake.NewClientset(web, db, webSlice, node1, namespace)
	watches := make(chan struct{}, 10)
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		watches <- struct{}{}
		return true, w, err
	})
	b := start(t, client)
	eventually(t, b, "what is there from the start", func(s *model.Snapshot) bool {
		return s.Complete && s.Len() == 2 && backends(s, "web") == 1 && s.NodeNamed("node1") != nil && s.HasNamespace("default")
	})
	for range 9 {
		<-watches // unlike a server, the fake forgets what happens between a list and its watch
	}

	more := webSlice.DeepCopy()
	more.Endpoints = append(more.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.244.1.6"}})
	if _, err := client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), more, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, b, "one more endpoint", func(s *model.Snapshot) bool { return backends(s, "web") == 2 })

	unlabelled := more.DeepCopy()
	unlabelled.Labels = nil
	if _, err := client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), unlabelled, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, b, "a slice that is nobody's any more", func(s *model.Snapshot) bool { return backends(s, "web") == 0 })

	if err := client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Nodes().Delete(t.Context(), "node1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, b, "deletions", func(s *model.Snapshot) bool {
		return s.Len() == 1 && s.NodeNamed("node1") == nil && !s.HasNamespace("default")
	})
}

func TestWhatIsKnownStaysWhileTheWatchIsBroken(t *testing.T) {
	client := fake.NewClientset(web, db, webSlice, node1, namespace)
	var broken atomic.Bool
	services := make(chan *watch.FakeWatcher, 10)
	client.PrependWatchReactor("services", func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		services <- w
		return true, w, nil
	})
	client.PrependReactor("list", "services", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		if broken.Load() {
			return true, nil, context.DeadlineExceeded
		}
		return false, nil, nil
	})
	b := start(t, client)
	// What else is listed at the start must not be taken for a change by the broken watch.
	eventually(t, b, "the first lists", func(s *model.Snapshot) bool { return s.Len() == 2 && s.Complete && s.IngressesKnown })
	before := b.Current()

	// The watch is lost, a Service goes meanwhile, and the server has forgotten the version that was reached.
	broken.Store(true)
	if err := client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("services"), "default", "web"); err != nil {
		t.Fatal(err)
	}
	(<-services).Error(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired})
	if b.Current() != before {
		t.Error("a broken watch changed the snapshot")
	}
	broken.Store(false)
	eventually(t, b, "the Service that went while nobody watched", func(s *model.Snapshot) bool { return s.Len() == 1 })
	if b.Current().Service(model.ServiceName{Namespace: "default", Name: "db"}) != before.Service(model.ServiceName{Namespace: "default", Name: "db"}) {
		t.Error("a new list of the same Service made another pointer")
	}
}

func TestStreamedListsAreConvertedOneByOne(t *testing.T) {
	q := newQueue()
	s := &store[*discoveryv1.EndpointSlice, *source.SliceObject]{
		queue: q, convert: source.Slice, set: (*source.Batch).SetSlice, replace: (*source.Batch).ReplaceSlices, delete: (*source.Batch).DeleteSlice,
	}
	one, err := s.Transformer()(webSlice)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := one.(converted[*source.SliceObject]); !ok {
		t.Fatalf("the API object is kept: %T", one)
	}
	foreign := webSlice.DeepCopy()
	foreign.Labels = nil
	other, err := s.Transformer()(foreign)
	if err != nil {
		t.Fatal(err)
	}
	b := source.NewBuilder()
	b.Update(func(batch *source.Batch) {
		batch.ReplaceServices([]*source.ServiceObject{source.Service(web)})
		batch.ReplaceNodes(nil)
		batch.ReplaceNamespaces(nil)
	})
	if err := s.Replace([]any{one, other}, "7"); err != nil {
		t.Fatal(err)
	}
	b.Update(func(batch *source.Batch) {
		for _, edit := range q.drain() {
			edit(batch)
		}
	})
	if !b.Current().Complete || backends(b.Current(), "web") != 1 {
		t.Errorf("complete %t, %d backends", b.Current().Complete, backends(b.Current(), "web"))
	}
	for _, call := range []func() error{
		func() error { return s.Add(web) },
		func() error { return s.Delete(web) },
		func() error { return s.Replace([]any{web}, "8") },
		func() error { _, err := s.Transformer()(web); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "Service") {
			t.Errorf("a wrong type gave %v", err)
		}
	}
}

func TestEditsThatComeTogetherAreOneRevision(t *testing.T) {
	q := newQueue()
	b := source.NewBuilder()
	for i := range 100 {
		q.push(func(batch *source.Batch) { batch.SetNamespace(strings.Repeat("x", i+1)) })
	}
	q.push(func(batch *source.Batch) {
		batch.ReplaceServices(nil)
		batch.ReplaceSlices(nil)
		batch.ReplaceNodes(nil)
		batch.ReplaceNamespaces([]string{"one", "two"})
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); q.feed(ctx, b) }()
	eventually(t, b, "a complete snapshot", func(s *model.Snapshot) bool { return s.Complete })
	for i := range 100 {
		q.push(func(batch *source.Batch) { batch.SetNamespace(strings.Repeat("x", i+1)) })
	}
	eventually(t, b, "the last namespace", func(s *model.Snapshot) bool { return s.HasNamespace(strings.Repeat("x", 100)) })
	if n := b.Current().Revision; n > 50 {
		t.Errorf("100 edits made %d revisions", n)
	}
	cancel()
	<-done
}

func TestOnlyTheObjectsOfLoadBalancersAreAskedFor(t *testing.T) {
	client := fake.NewClientset(namespace)
	b := start(t, client)
	eventually(t, b, "pools", func(s *model.Snapshot) bool { return s.LoadBalancing != nil })
	asked := map[string]bool{}
	for _, a := range client.Actions() {
		if l, ok := a.(clienttesting.ListAction); ok {
			r := l.GetListRestrictions()
			asked[l.GetResource().Resource+" of "+l.GetNamespace()+" "+r.Fields.String()+r.Labels.String()] = true
		}
	}
	for _, want := range []string{"configmaps of metallb-system metadata.name=config", "pods of  app=metallb"} {
		if !asked[want] {
			t.Errorf("not asked for %s, but for %v", want, asked)
		}
	}
	for what := range asked {
		if strings.HasPrefix(what, "pods") && !strings.HasSuffix(what, source.RivalLabels) {
			t.Errorf("asked for %s", what)
		}
	}
}

func TestPoolsFollowTheirConfigMap(t *testing.T) {
	client := fake.NewClientset(namespace)
	b := start(t, client)
	eventually(t, b, "no pools", func(s *model.Snapshot) bool { return s.LoadBalancing != nil && len(s.LoadBalancing.Pools) == 0 })
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "config"},
		Data:       map[string]string{"config": "address-pools: [{name: lan, protocol: layer2, addresses: [192.0.2.0/24]}]"},
	}
	// Unlike a server, the fake forgets what happens between a list and its watch: write until it is seen.
	for n := 0; b.Current().LoadBalancing.PoolNamed("lan") == nil; n++ {
		if n > 2000 {
			t.Fatal("never came: the pool")
		}
		client.CoreV1().ConfigMaps(m.Namespace).Delete(t.Context(), m.Name, metav1.DeleteOptions{})
		if _, err := client.CoreV1().ConfigMaps(m.Namespace).Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := client.CoreV1().ConfigMaps(m.Namespace).Delete(t.Context(), m.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, b, "no pools again", func(s *model.Snapshot) bool { return len(s.LoadBalancing.Pools) == 0 })
}
