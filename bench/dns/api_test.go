package dns

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// api is as much of an API server as a watcher of Services needs. Its own delay is that of writing to a socket.
type api struct {
	url string

	mu       sync.Mutex
	revision int
	services map[string]*corev1.Service
	watchers map[chan []byte]bool
}

func startAPI(t testing.TB, services int) *api {
	t.Helper()
	a := &api{services: map[string]*corev1.Service{}, watchers: map[chan []byte]bool{}, revision: 1}
	for i := range services {
		s := service(i)
		a.services[s.Name] = s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.url = "http://" + l.Addr().String()
	h := &http.Server{Handler: a}
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })
	return a
}

// service is the i-th Service.
func service(i int) *corev1.Service {
	ip := fmt.Sprintf("10.%d.%d.%d", 96+i>>16, i>>8&255, i&255)
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("svc-%d", i), ResourceVersion: "1", UID: "1"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	q := r.URL.Query()
	switch {
	case q.Get("sendInitialEvents") != "": // clients list instead
		w.WriteHeader(http.StatusUnprocessableEntity)
		json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
	case q.Get("watch") != "":
		a.watch(w, r)
	case strings.HasSuffix(r.URL.Path, "/services"):
		a.mu.Lock()
		list := corev1.ServiceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"}}
		list.ResourceVersion = strconv.Itoa(a.revision)
		for _, s := range a.services {
			list.Items = append(list.Items, *s)
		}
		a.mu.Unlock()
		json.NewEncoder(w).Encode(&list)
	case strings.HasSuffix(r.URL.Path, "/namespaces"):
		list := corev1.NamespaceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}, Items: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}}
		list.ResourceVersion = "1"
		json.NewEncoder(w).Encode(&list)
	case strings.HasSuffix(r.URL.Path, "/endpointslices"):
		fmt.Fprint(w, `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSliceList","metadata":{"resourceVersion":"1"},"items":[]}`)
	case strings.HasSuffix(r.URL.Path, "/nodes"):
		fmt.Fprint(w, `{"apiVersion":"v1","kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]}`)
	default:
		http.NotFound(w, r)
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	w.(http.Flusher).Flush()
	events := make(chan []byte, 100_000)
	if strings.HasSuffix(r.URL.Path, "/services") {
		a.mu.Lock()
		a.watchers[events] = true
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			delete(a.watchers, events)
			a.mu.Unlock()
		}()
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			w.Write(e)
			w.(http.Flusher).Flush()
		}
	}
}

// write makes a Service what it is given as, and tells all who watch.
func (a *api) write(s *corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision++
	s.ResourceVersion = strconv.Itoa(a.revision)
	kind := "ADDED"
	if a.services[s.Name] != nil {
		kind = "MODIFIED"
	}
	a.services[s.Name] = s
	object, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	event := fmt.Appendf(nil, `{"type":%q,"object":%s}`+"\n", kind, object)
	for w := range a.watchers {
		w <- event
	}
}
