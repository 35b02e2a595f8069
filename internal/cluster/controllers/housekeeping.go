package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/podgc"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	// namespaceResync is upstream's period to look at all namespaces again.
	namespaceResync = 5 * time.Minute
	// discoveryPeriod is how soon owners of a new custom resource are followed.
	discoveryPeriod = 30 * time.Second
	// finishedPods is how many finished pods may stay, as upstream's default.
	finishedPods = 12500
)

// housekeeping adds what fills new namespaces, and what removes what nobody owns.
func (b *builder) housekeeping(ctx context.Context) {
	core := b.inf.Core().V1()

	namespaces := namespace.NewNamespaceController(ctx, b.client, b.metadata, b.client.Discovery().ServerPreferredNamespacedResources, core.Namespaces(), namespaceResync, corev1.FinalizerKubernetes)
	b.add("namespace", nil, func(ctx context.Context) { namespaces.Run(ctx, workers) })

	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), b.client, serviceaccount.DefaultServiceAccountsControllerOptions())
	b.add("serviceaccount", err, func(ctx context.Context) { accounts.Run(ctx, 1) })

	rootCA, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), b.client, b.cfg.RootCA)
	b.add("root-ca-certificate-publisher", err, func(ctx context.Context) { rootCA.Run(ctx, 1) })

	roles := clusterroleaggregation.NewClusterRoleAggregation(b.inf.Rbac().V1().ClusterRoles(), b.client.RbacV1())
	b.add("clusterrole-aggregation", nil, func(ctx context.Context) { roles.Run(ctx, 1) })

	pods := podgc.NewPodGC(ctx, b.client, core.Pods(), core.Nodes(), finishedPods)
	b.add("pod-garbage-collector", nil, pods.Run)

	b.garbage(ctx)
}

// garbage adds the garbage collector, which watches every resource that discovery
// names, those of later custom resource definitions too.
func (b *builder) garbage(ctx context.Context) {
	ignored := map[schema.GroupResource]struct{}{}
	for gr := range garbagecollector.DefaultIgnoredResources() {
		ignored[gr] = struct{}{}
	}
	both := informerfactory.NewInformerFactory(b.cfg.Informers, metadatainformer.NewSharedInformerFactory(b.metadata, 0))
	graph := garbagecollector.NewDependencyGraphBuilder(ctx, b.metadata, b.mapper, ignored, both, b.started)
	gc, err := garbagecollector.NewComposedGarbageCollector(ctx, b.client, b.metadata, b.mapper, graph)
	b.add("garbage-collector", err, func(ctx context.Context) { gc.Run(ctx, workers, discoveryPeriod) })
	b.add("garbage-collector-discovery", err, func(ctx context.Context) { gc.Sync(ctx, b.client.Discovery(), discoveryPeriod) })
}
