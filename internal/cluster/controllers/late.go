package controllers

import (
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/tools/cache"
)

// late is the informers as upstream's constructors expect them: not running yet. Many add their handlers first and set
// what these use afterwards, which over informers that run already is a panic now and then. It keeps handlers back
// until open.
type late struct {
	informers.SharedInformerFactory
	gate *gate
}

// gate holds the handlers that wait.
type gate struct {
	mu      sync.Mutex
	opened  bool
	waiting []*registration
}

func (g *gate) add(register func() (cache.ResourceEventHandlerRegistration, error)) (cache.ResourceEventHandlerRegistration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened {
		return register()
	}
	r := &registration{gate: g, register: register}
	g.waiting = append(g.waiting, r)
	return r, nil
}

// open adds all handlers that wait; later ones are added at once.
func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = true
	var errs []error
	for _, r := range g.waiting {
		var err error
		r.real, err = r.register()
		errs = append(errs, err)
	}
	g.waiting = nil
	return errors.Join(errs...)
}

// registration is a handler's, which may wait.
type registration struct {
	gate     *gate
	register func() (cache.ResourceEventHandlerRegistration, error)
	real     cache.ResourceEventHandlerRegistration // once the gate is open
}

func (r *registration) HasSynced() bool {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	return r.real != nil && r.real.HasSynced()
}

// HasSyncedChecker is for controllers that run: constructors do not ask.
func (r *registration) HasSyncedChecker() cache.DoneChecker {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	return r.real.HasSyncedChecker()
}

type lateInformer struct {
	cache.SharedIndexInformer
	gate *gate
}

func (i lateInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{})
}

func (i lateInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, d time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{ResyncPeriod: &d})
}

func (i lateInformer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.gate.add(func() (cache.ResourceEventHandlerRegistration, error) {
		return i.SharedIndexInformer.AddEventHandlerWithOptions(h, o)
	})
}

// InformerFor is where the groups below get their informers from.
func (l late) InformerFor(o runtime.Object, make internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	return lateInformer{l.SharedInformerFactory.InformerFor(o, make), l.gate}
}

func (l late) Apps() apps.Interface { return apps.New(l, metav1.NamespaceAll, nil) }
func (l late) Autoscaling() autoscaling.Interface {
	return autoscaling.New(l, metav1.NamespaceAll, nil)
}
func (l late) Batch() batch.Interface { return batch.New(l, metav1.NamespaceAll, nil) }
func (l late) Coordination() coordination.Interface {
	return coordination.New(l, metav1.NamespaceAll, nil)
}
func (l late) Core() core.Interface             { return core.New(l, metav1.NamespaceAll, nil) }
func (l late) Discovery() discovery.Interface   { return discovery.New(l, metav1.NamespaceAll, nil) }
func (l late) Networking() networking.Interface { return networking.New(l, metav1.NamespaceAll, nil) }
func (l late) Policy() policy.Interface         { return policy.New(l, metav1.NamespaceAll, nil) }
func (l late) Rbac() rbac.Interface             { return rbac.New(l, metav1.NamespaceAll, nil) }
