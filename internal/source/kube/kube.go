// Package kube feeds a source.Builder from a Kubernetes API server by list and watch.
//
// Objects are converted as they arrive, also those of the initial list where the server streams it (KEP-3157), and
// no copy of the API objects is kept. Everything that arrives while the Builder works becomes its next batch. A lost
// connection is taken up again with back-off; what was known stays in force meanwhile.
//
// Services and EndpointSlices are not filtered on the server: DNS needs headless Services and those of other proxies
// too, so package source decides. Of ConfigMaps and Pods only those that decide about load balancers are asked for.
// It writes nothing to the API.
package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"minato/internal/model"
	"minato/internal/source"
)

// Client makes a client that speaks protobuf, which costs a fraction of JSON in CPU time and memory.
func Client(cfg *rest.Config) (kubernetes.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", cfg.Host, err)
	}
	return c, nil
}

// ClientFrom makes a Client of a kubeconfig file, or, without one, as a pod of the cluster reaches its API.
func ClientFrom(kubeconfig string) (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("say with a kubeconfig how to reach the API: %w", err)
	}
	cfg.QPS = -1 // a watcher asks seldom
	return Client(cfg)
}

// Run lists and watches until ctx ends, and returns nil when everything it started has ended. The client should be
// one that Client made. What goes wrong with the connection is logged by client-go and tried again for ever.
func Run(ctx context.Context, client kubernetes.Interface, b *source.Builder) error {
	q := newQueue()
	return run(ctx, b, q, slices.Concat(serviceReflectors(client, q), poolReflectors(client, q), ingressReflectors(client, q), dnsReflectors(client, q)))
}

// RunServices is Run for Services, EndpointSlices, nodes and namespaces alone.
func RunServices(ctx context.Context, client kubernetes.Interface, b *source.Builder) error {
	q := newQueue()
	return run(ctx, b, q, serviceReflectors(client, q))
}

func run(ctx context.Context, b *source.Builder, q *queue, all []*cache.Reflector) error {
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() { r.RunWithContext(ctx) })
	}
	q.feed(ctx, b)
	wg.Wait()
	return nil
}

func serviceReflectors(client kubernetes.Interface, q *queue) []*cache.Reflector {
	core, discovery := client.CoreV1(), client.DiscoveryV1()
	return []*cache.Reflector{
		reflector(client, core.Services(""), &corev1.Service{}, &store[*corev1.Service, *source.ServiceObject]{
			queue:   q,
			convert: func(o *corev1.Service) (*source.ServiceObject, bool) { return source.Service(o), true },
			set:     (*source.Batch).SetService,
			replace: (*source.Batch).ReplaceServices,
			delete:  func(b *source.Batch, n source.ObjectName) { b.DeleteService(model.ServiceName(n)) },
		}),
		reflector(client, discovery.EndpointSlices(""), &discoveryv1.EndpointSlice{}, &store[*discoveryv1.EndpointSlice, *source.SliceObject]{
			queue:   q,
			convert: source.Slice,
			set:     (*source.Batch).SetSlice,
			replace: (*source.Batch).ReplaceSlices,
			delete:  (*source.Batch).DeleteSlice,
		}),
		reflector(client, core.Nodes(), &corev1.Node{}, &store[*corev1.Node, *model.Node]{
			queue:   q,
			convert: func(o *corev1.Node) (*model.Node, bool) { return source.Node(o), true },
			set:     (*source.Batch).SetNode,
			replace: (*source.Batch).ReplaceNodes,
			delete:  func(b *source.Batch, n source.ObjectName) { b.DeleteNode(n.Name) },
		}),
		reflector(client, core.Namespaces(), &corev1.Namespace{}, &store[*corev1.Namespace, string]{
			queue:   q,
			convert: func(o *corev1.Namespace) (string, bool) { return o.Name, true },
			set:     (*source.Batch).SetNamespace,
			replace: (*source.Batch).ReplaceNamespaces,
			delete:  func(b *source.Batch, n source.ObjectName) { b.DeleteNamespace(n.Name) },
		}),
	}
}

// poolReflectors watch what decides about the addresses of load balancers.
func poolReflectors(client kubernetes.Interface, q *queue) []*cache.Reflector {
	core := client.CoreV1()
	return []*cache.Reflector{
		reflector(client, only(core.ConfigMaps(source.PoolConfigNamespace), poolConfigs), &corev1.ConfigMap{}, &store[*corev1.ConfigMap, *source.PoolConfig]{
			queue:   q,
			convert: source.Pools,
			set:     (*source.Batch).SetPools,
			replace: (*source.Batch).ReplacePools,
			delete:  (*source.Batch).DeletePools,
		}),
		reflector(client, only(core.Pods(""), rivals), &corev1.Pod{}, &store[*corev1.Pod, source.Rival]{
			queue:   q,
			convert: source.RivalPod,
			set:     (*source.Batch).SetRival,
			replace: (*source.Batch).ReplaceRivals,
			delete:  (*source.Batch).DeleteRival,
		}),
	}
}

// dnsReflectors watch what people configured of DNS.
func dnsReflectors(client kubernetes.Interface, q *queue) []*cache.Reflector {
	return []*cache.Reflector{
		reflector(client, client.CoreV1().ConfigMaps(source.DNSConfigNamespace), &corev1.ConfigMap{}, &store[*corev1.ConfigMap, *source.DNSConfigMap]{
			queue:   q,
			convert: source.DNSConfig,
			set:     (*source.Batch).SetDNSConfig,
			replace: (*source.Batch).ReplaceDNSConfigs,
			delete:  (*source.Batch).DeleteDNSConfig,
		}),
	}
}

func poolConfigs(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, source.PoolConfigName).String()
}

func rivals(o *metav1.ListOptions) { o.LabelSelector = source.RivalLabels }

// narrowed is a lister that asks for less.
type narrowed[L runtime.Object] struct {
	all    lister[L]
	narrow func(*metav1.ListOptions)
}

func only[L runtime.Object](l lister[L], narrow func(*metav1.ListOptions)) lister[L] {
	return narrowed[L]{l, narrow}
}

func (n narrowed[L]) List(ctx context.Context, o metav1.ListOptions) (L, error) {
	n.narrow(&o)
	return n.all.List(ctx, o)
}

func (n narrowed[L]) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	n.narrow(&o)
	return n.all.Watch(ctx, o)
}

// lister is what the typed clients have in common.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func reflector[L runtime.Object](client kubernetes.Interface, l lister[L], example runtime.Object, s cache.ReflectorStore) *cache.Reflector {
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return l.List(ctx, o)
		},
		WatchFuncWithContext: l.Watch,
	}, client)
	return cache.NewReflectorWithOptions(lw, example, s, cache.ReflectorOptions{Name: fmt.Sprintf("%T", example)})
}
