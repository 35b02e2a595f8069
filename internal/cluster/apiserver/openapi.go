package apiserver

import (
	"fmt"

	restful "github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/cached"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// describeAll serves /openapi/v3 for the built-in groups, for definitions of custom
// resources and, by upstream's controller, for custom resources themselves. Upstream
// builds each document at the start; here it is built when somebody first asks.
// Version 2, which kubectl before 1.27 needs, is not served: it is the largest heap
// object of a kube-apiserver.
func (s *Server) describeAll(server *genericapiserver.GenericAPIServer, cfg *common.OpenAPIV3Config) error {
	service := handler3.NewOpenAPIService()
	if err := service.RegisterOpenAPIV3VersionedService("/openapi/v3", server.Handler.NonGoRestfulMux); err != nil {
		return fmt.Errorf("installing /openapi/v3: %w", err)
	}
	for _, container := range []*restful.Container{server.Handler.GoRestfulContainer, s.crds.GenericAPIServer.Handler.GoRestfulContainer} {
		for _, ws := range container.RegisteredWebServices() {
			path := ws.RootPath()[1:]
			service.UpdateGroupVersionLazy(path, cached.Once(cached.Func(func() (*spec3.OpenAPI, string, error) {
				doc, err := builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{ws}), cfg)
				return doc, path, err
			})))
		}
	}
	// Upstream's controller of custom resources' documents looks at these two fields
	// when it starts. The first only has to be there; it is of version 2.
	s.crds.GenericAPIServer.StaticOpenAPISpec = &spec.Swagger{}
	s.crds.GenericAPIServer.OpenAPIV3VersionedService = service
	return nil
}
