package apiserver

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	restful "github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"minato/internal/cluster/apiserver/kubeversion"
)

const openAPIPath = "/openapi/v3"

// documents serves OpenAPI version 3. Upstream builds the document of every group
// at the start and keeps it, some 25 MB, because its hash is in the index; here the
// hash is of what a document is built from, and it is built when somebody asks. Clients
// keep what they got by that hash. Version 2, for kubectl before 1.27, is an empty document.
type documents struct {
	config *common.OpenAPIV3Config
	groups map[string]document      // of built-in groups, by path, such as apis/apps/v1
	custom *handler3.OpenAPIService // of custom resources, kept by upstream's controller
}

type document struct {
	service *restful.WebService
	hash    string
}

// describeAll installs the documents of both servers.
func (s *Server) describeAll(server *genericapiserver.GenericAPIServer, cfg *common.OpenAPIV3Config) {
	d := &documents{config: cfg, groups: map[string]document{}, custom: handler3.NewOpenAPIService()}
	for _, container := range []*restful.Container{server.Handler.GoRestfulContainer, s.crds.GenericAPIServer.Handler.GoRestfulContainer} {
		for _, service := range container.RegisteredWebServices() {
			d.groups[strings.Trim(service.RootPath(), "/")] = document{service, hashOf(service)}
		}
	}
	server.Handler.NonGoRestfulMux.Handle(openAPIPath, http.HandlerFunc(d.serveIndex))
	server.Handler.NonGoRestfulMux.HandlePrefix(openAPIPath+"/", http.HandlerFunc(d.serveDocument))
	server.Handler.NonGoRestfulMux.Handle("/openapi/v2", http.HandlerFunc(serveVersion2))
	// Upstream's controller of custom resources' documents looks at these two fields
	// when it starts. The first only has to be there; it is of version 2.
	s.crds.GenericAPIServer.StaticOpenAPISpec = &spec.Swagger{}
	s.crds.GenericAPIServer.OpenAPIV3VersionedService = d.custom
}

// serveVersion2 answers with an empty document. kubectl asks for it when it meets a kind that version 3 does not have,
// finds nothing to validate against, and goes on to say that there is no such kind.
func serveVersion2(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.Header.Get("Accept"), "protobuf") {
		w.Header().Set("Content-Type", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
		return // an empty message
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"swagger":"2.0","info":{"title":"Kubernetes","version":%q},"paths":{}}`, kubeversion.Version)
}

// hashOf covers what can differ between two programs: the types are those of the
// Kubernetes release, the routes are ours.
func hashOf(service *restful.WebService) string {
	h := sha256.New()
	fmt.Fprintln(h, kubeversion.Version)
	for _, r := range service.Routes() {
		fmt.Fprintln(h, r.Method, r.Path)
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

func (d *documents) serveIndex(w http.ResponseWriter, _ *http.Request) {
	var answer body
	d.custom.HandleDiscovery(&answer, &http.Request{Method: http.MethodGet}) // all of it, whatever the client has
	index := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	if err := json.Unmarshal(answer.data, &index); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for path, doc := range d.groups {
		index.Paths[path] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: doc.url(path)}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(index) // an error is the client's, which has gone
}

func (doc document) url(path string) string { return openAPIPath + "/" + path + "?hash=" + doc.hash }

func (d *documents) serveDocument(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, openAPIPath+"/")
	doc, ok := d.groups[path]
	if !ok {
		d.custom.HandleGroupVersion(w, r)
		return
	}
	switch asked := r.URL.Query().Get("hash"); asked {
	case doc.hash:
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	case "":
		w.Header().Set("Cache-Control", "no-cache, private")
	default:
		http.Redirect(w, r, doc.url(path), http.StatusMovedPermanently)
		return
	}
	w.Header().Set("Etag", `"`+doc.hash+`"`)
	w.Header().Set("Vary", "Accept")
	if r.Header.Get("If-None-Match") == `"`+doc.hash+`"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	d.write(w, r, doc)
}

// write builds a document in the form that the client accepts.
func (d *documents) write(w http.ResponseWriter, r *http.Request, doc document) {
	built, err := builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{doc.service}), d.config)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	data, err := json.Marshal(built)
	form := "application/json"
	if err == nil && strings.Contains(r.Header.Get("Accept"), "proto-openapi") {
		form = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
		data, err = handler3.ToV3ProtoBinary(data)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", form)
	w.Write(data)
}

// body is a ResponseWriter that keeps what is written to it.
type body struct {
	header http.Header
	data   []byte
}

func (b *body) Header() http.Header {
	if b.header == nil {
		b.header = http.Header{}
	}
	return b.header
}

func (b *body) Write(p []byte) (int, error) { b.data = append(b.data, p...); return len(p), nil }
func (b *body) WriteHeader(int)             {}
