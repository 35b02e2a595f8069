package apiserver

import (
	"fmt"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
)

// customResources builds the server of custom resource definitions and of what they
// define. Requests that the main server does not know go to it.
func (s *Server) customResources(main *genericapiserver.Config) (*apiextensions.CustomResourceDefinitions, error) {
	cfg := *main
	cfg.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	cfg.MergedResourceConfig = apiextensions.DefaultAPIResourceConfigSource()
	cfg.RESTOptionsGetter = storageOptions{store: s.store, scheme: apiextensions.Scheme, codecs: apiextensions.Codecs, mediaType: runtime.ContentTypeJSON}
	config := apiextensions.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: cfg, SharedInformerFactory: s.informers},
		ExtraConfig: apiextensions.ExtraConfig{
			CRDRESTOptionsGetter: customOptions{s.store}, MasterCount: 1,
			ServiceResolver:     webhook.NewDefaultServiceResolver(),
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, s.loopback, nil),
		},
	}
	crds, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("making the server of custom resources: %w", err)
	}
	return crds, nil
}
