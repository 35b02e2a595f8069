package controllers

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func TestHandlersOfRunningInformersWaitForTheGate(t *testing.T) {
	factory := informers.NewSharedInformerFactory(fake.NewClientset(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}), 0)
	factory.Core().V1().Pods().Informer()
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	l := late{factory, &gate{}}
	seen := make(chan string, 2)
	add := func() cache.ResourceEventHandlerRegistration {
		r, err := l.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { seen <- o.(*v1.Pod).Name },
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := add()
	select {
	case name := <-seen:
		t.Fatalf("told of %s before the gate was opened", name)
	case <-time.After(50 * time.Millisecond): // long enough for a handler that does not wait
	}
	if r.HasSynced() {
		t.Error("synced before the gate was opened")
	}
	if err := l.gate.open(); err != nil {
		t.Fatal(err)
	}
	if name := <-seen; name != "p" {
		t.Errorf("told of %s", name)
	}
	cache.WaitForCacheSync(t.Context().Done(), r.HasSynced)
	add()
	if name := <-seen; name != "p" {
		t.Errorf("a later handler was told of %s", name)
	}
}
