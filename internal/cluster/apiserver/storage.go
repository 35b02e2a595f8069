package apiserver

import (
	"fmt"
	"path"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/generic"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"minato/internal/cluster/apiserver/store"
)

// keyPrefix is where all objects are in the store.
const keyPrefix = "/registry"

// storageOptions says how the objects of a scheme are stored.
type storageOptions struct {
	store     *store.Store
	scheme    *runtime.Scheme
	codecs    serializer.CodecFactory
	mediaType string
}

// GetRESTOptions implements generic.RESTOptionsGetter.
func (o storageOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	gr = storedAs(gr)
	versions := o.scheme.PrioritizedVersionsForGroup(gr.Group)
	if len(versions) == 0 {
		return generic.RESTOptions{}, fmt.Errorf("storing %s: no version of its group is registered", gr)
	}
	cfg := storagebackend.NewDefaultConfig(keyPrefix, nil)
	codec, encodeVersioner, err := serverstorage.NewStorageCodec(serverstorage.StorageCodecConfig{
		StorageMediaType: o.mediaType, StorageSerializer: o.codecs, StorageVersion: versions[0],
		MemoryVersion: schema.GroupVersion{Group: gr.Group, Version: runtime.APIVersionInternal}, Config: *cfg,
	})
	if err != nil {
		return generic.RESTOptions{}, fmt.Errorf("storing %s: %w", gr, err)
	}
	cfg.Codec, cfg.EncodeVersioner = codec, encodeVersioner
	return restOptions(o.store, gr, cfg), nil
}

// customOptions says how custom resources are stored: as the JSON they are.
type customOptions struct{ store *store.Store }

// GetRESTOptions implements generic.RESTOptionsGetter.
func (o customOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	return restOptions(o.store, gr, storagebackend.NewDefaultConfig(keyPrefix, unstructured.UnstructuredJSONScheme)), nil
}

func restOptions(s *store.Store, gr schema.GroupResource, cfg *storagebackend.Config) generic.RESTOptions {
	o := generic.RESTOptions{
		StorageConfig: cfg.ForResource(gr), Decorator: backend{s}.cached,
		EnableGarbageCollection: true, DeleteCollectionWorkers: 1, ResourcePrefix: resourcePrefix(gr),
	}
	if gr.Resource == "events" {
		// Written often, watched seldom, and gone after an hour: upstream does not cache them either.
		o.Decorator = backend{s}.direct
	}
	return o
}

// storedAs maps a resource to the one it shares its objects with: an event can be
// written through one group and read through the other.
func storedAs(gr schema.GroupResource) schema.GroupResource {
	if gr.Resource == "events" {
		gr.Group = ""
	}
	return gr
}

func resourcePrefix(gr schema.GroupResource) string { return path.Join(gr.Group, gr.Resource) }
