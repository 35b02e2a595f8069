// Package feed is a Kubernetes API server with nothing behind it: what a test sets, it lists and watches, in JSON and
// protobuf, with streamed lists (KEP-3157) as the real one has them. Clients of the real thing cannot tell, and a
// change reaches them as soon as it is set.
//
// It validates nothing, knows no selectors (every client sees every object of a resource), takes no writes but
// forgets them politely (Events, status), and asks nobody who he is.
package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object is what can be set.
type Object interface {
	runtime.Object
	metav1.Object
}

// Server is the API. New makes one; it serves until its listeners are closed. Its methods may be called from any
// goroutine.
type Server struct {
	mu        sync.Mutex
	revision  int64
	resources map[string]*resource // by path, as in "api/v1/services"
}

// New makes a Server without objects.
func New() *Server { return &Server{resources: map[string]*resource{}} }

// resource is all objects of a kind, and what happened to them.
type resource struct {
	kind    schema.GroupVersionKind
	objects map[string]Object // by namespace/name
	events  []event           // in the order of their revisions
	more    chan struct{}     // closed with the next event
}

type event struct {
	revision int64
	watch.Event
	encoded *sync.Map // media type -> frame
}

// Set puts objects in the place of those of their names; the caller gives them away. Each is one event.
func (s *Server) Set(all ...Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range all {
		r := s.resourceOf(o)
		name := o.GetNamespace() + "/" + o.GetName()
		typ := watch.Modified
		if r.objects[name] == nil {
			typ = watch.Added
		}
		r.objects[name] = o
		s.happened(r, typ, o)
	}
}

// Delete takes objects away.
func (s *Server) Delete(all ...Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range all {
		r := s.resourceOf(o)
		name := o.GetNamespace() + "/" + o.GetName()
		if old := r.objects[name]; old != nil {
			delete(r.objects, name)
			s.happened(r, watch.Deleted, old.DeepCopyObject().(Object))
		}
	}
}

func (s *Server) happened(r *resource, typ watch.EventType, o Object) {
	s.revision++
	o.SetResourceVersion(strconv.FormatInt(s.revision, 10))
	o.GetObjectKind().SetGroupVersionKind(r.kind)
	r.events = append(r.events, event{s.revision, watch.Event{Type: typ, Object: o}, new(sync.Map)})
	close(r.more)
	r.more = make(chan struct{})
}

func (s *Server) resourceOf(o Object) *resource {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		panic(fmt.Sprintf("feed: %T is of no Kubernetes API: %v", o, err))
	}
	plural, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return s.at(kinds[0].GroupVersion(), plural.Resource, kinds[0].Kind)
}

func (s *Server) at(gv schema.GroupVersion, name, kind string) *resource {
	path := "apis/" + gv.String() + "/" + name
	if gv.Group == "" {
		path = "api/" + gv.Version + "/" + name
	}
	r := s.resources[path]
	if r == nil {
		r = &resource{kind: gv.WithKind(kind), objects: map[string]Object{}, more: make(chan struct{})}
		s.resources[path] = r
	}
	return r
}

// Serve answers on l until ctx ends, and returns when every client is gone.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

// ServeHTTP is the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	res, rest := s.find(parts)
	switch {
	case res == nil || len(rest) > 1:
		http.NotFound(w, r)
	case r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1":
		s.watch(w, r, res)
	case len(rest) == 1:
		s.get(w, r, res, rest[0])
	default:
		s.list(w, r, res)
	}
}

// find finds the resource of a path, and what of the path is left: the name of an object. Namespaces are no matter.
func (s *Server) find(parts []string) (*resource, []string) {
	prefix := 2
	if parts[0] == "apis" {
		prefix = 3
	}
	if len(parts) < prefix+1 {
		return nil, nil
	}
	gv, rest := schema.GroupVersion{Version: parts[prefix-1]}, parts[prefix:]
	if prefix == 3 {
		gv.Group = parts[1]
	}
	if rest[0] == "namespaces" && len(rest) > 2 {
		rest = rest[2:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(gv, rest[0], kindOf(gv, rest[0])), rest[1:]
}

// kindOf finds the kind of a resource, also of one that has no objects yet.
func kindOf(gv schema.GroupVersion, resource string) string {
	for kind := range scheme.Scheme.KnownTypes(gv) {
		if plural, _ := meta.UnsafeGuessKindToResource(gv.WithKind(kind)); plural.Resource == resource {
			return kind
		}
	}
	return ""
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, res *resource, name string) {
	s.mu.Lock()
	var found Object
	for _, o := range res.objects {
		if o.GetName() == name {
			found = o
		}
	}
	s.mu.Unlock()
	if found == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
		return
	}
	info := negotiate(r)
	w.Header().Set("Content-Type", info.MediaType)
	scheme.Codecs.EncoderForVersion(info.Serializer, res.kind.GroupVersion()).Encode(found, w)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, res *resource) {
	s.mu.Lock()
	var all []runtime.Object
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range res.objects {
			if !yield(n) {
				return
			}
		}
	}) {
		all = append(all, res.objects[name])
	}
	revision := s.revision
	s.mu.Unlock()
	list, err := scheme.Scheme.New(res.kind.GroupVersion().WithKind(res.kind.Kind + "List"))
	if err == nil {
		err = meta.SetList(list, all)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	list.(metav1.ListInterface).SetResourceVersion(strconv.FormatInt(revision, 10))
	info := negotiate(r)
	w.Header().Set("Content-Type", info.MediaType)
	scheme.Codecs.EncoderForVersion(info.Serializer, res.kind.GroupVersion()).Encode(list, w)
}

// negotiate takes protobuf where the client does.
func negotiate(r *http.Request) runtime.SerializerInfo {
	typ := runtime.ContentTypeJSON
	if strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		typ = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), typ)
	return info
}
