package apiserver

import (
	"context"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcdkubernetes "go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/client-go/tools/cache"

	"minato/internal/cluster/apiserver/store"
)

// backend connects upstream's storage of one resource to the store in this process.
// Upstream's own factory dials: one or two gRPC connections for each of some seventy
// resources, with their buffers and goroutines at both ends.
type backend struct{ store *store.Store }

// direct is a generic.StorageDecorator without a cache: every read asks the store.
func (b backend) direct(cfg *storagebackend.ConfigForResource, prefix string, _ func(runtime.Object) (string, error),
	newObject, newList func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	client := b.store.NewClient()
	versioner := storage.APIObjectVersioner{}
	kube := &etcdkubernetes.Client{Client: client}
	kube.Kubernetes = kube
	s, err := etcd3.New(kube, nil, cfg.Codec, newObject, newList, cfg.Prefix, prefix, cfg.GroupResource,
		identity.NewEncryptCheckTransformer(), cfg.LeaseManagerConfig, etcd3.NewDefaultDecoder(cfg.Codec, versioner), versioner)
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("storing %s: %w", cfg.GroupResource, err)
	}
	// Subresources share the storage, and each destroys it.
	return s, sync.OnceFunc(func() { s.Close(); client.Close() }), nil
}

// cached is a generic.StorageDecorator with upstream's watch cache, which serves
// watches and most reads from memory.
func (b backend) cached(cfg *storagebackend.ConfigForResource, prefix string, key func(runtime.Object) (string, error),
	newObject, newList func() runtime.Object, attrs storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	s, destroy, err := b.direct(cfg, prefix, key, newObject, newList, attrs, triggers, indexers)
	if err != nil {
		return nil, nil, err
	}
	c, err := cacher.NewCacherFromConfig(cacher.Config{
		Storage: s, Versioner: storage.APIObjectVersioner{}, GroupResource: cfg.GroupResource, EventsHistoryWindow: cfg.EventsHistoryWindow,
		ResourcePrefix: prefix, KeyFunc: key, NewFunc: newObject, NewListFunc: newList,
		GetAttrsFunc: attrs, IndexerFuncs: triggers, Indexers: indexers, Codec: cfg.Codec,
	})
	if err != nil {
		destroy()
		return nil, nil, fmt.Errorf("caching %s: %w", cfg.GroupResource, err)
	}
	d := cacher.NewCacheDelegator(c, s)
	return d, sync.OnceFunc(func() { d.Stop(); c.Stop(); destroy() }), nil
}

// named is a client with an endpoint, which upstream wants to ask for its version: the
// cache serves consistent reads only if the store can tell how far a watch has come.
type named struct{ *clientv3.Client }

func (named) Endpoints() []string { return []string{"minato"} }

func checkFeatures(ctx context.Context, client *clientv3.Client) {
	feature.DefaultFeatureSupportChecker.CheckClient(ctx, named{client}, storage.RequestWatchProgress)
}
