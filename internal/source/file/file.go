// Package file feeds a source.Builder from files of API objects, in YAML or JSON, several documents in one.
//
// It is for tests, for `minato show -f`, and for clusters without an API. Services, EndpointSlices, Nodes, Namespaces,
// Ingresses, IngressClasses, TLS Secrets, MetalLB's ConfigMap and Lists of them are read strictly: an unknown field is
// an error that names file, document and field. Objects of other kinds are skipped and reported. The few defaults of
// the API that matter are filled in; nothing is validated beyond that, and no addresses are given out.
package file

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"minato/internal/model"
	"minato/internal/source"
)

// Error says where a file is wrong.
type Error struct {
	File     string
	Document int    // from 1
	Object   string // "Service default/web", empty when it could not be read so far
	Err      error
}

func (e *Error) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s, document %d: %v", e.File, e.Document, e.Err)
	}
	return fmt.Sprintf("%s, document %d (%s): %v", e.File, e.Document, e.Object, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Objects is the content of files. The zero value is empty.
type Objects struct {
	Skipped []string // "Deployment default/web", in the order of the files

	services   []*source.ServiceObject
	slices     []*source.SliceObject
	nodes      []*model.Node
	namespaces []string
	ingresses  []*model.Ingress
	secrets    []*source.SecretObject
	classes    []*source.ClassObject
	pools      []*source.PoolConfig
	dns        []*source.DNSConfigMap
}

// Load reads files and makes their content everything that b knows.
func Load(b *source.Builder, paths ...string) (*Objects, error) {
	var o Objects
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("reading objects: %w", err)
		}
		if err := o.Parse(p, data); err != nil {
			return nil, err
		}
	}
	o.Fill(b)
	return &o, nil
}

// Fill makes the objects everything that b knows. It may be called again.
func (o *Objects) Fill(b *source.Builder) {
	b.Update(func(batch *source.Batch) {
		batch.ReplaceNamespaces(o.namespaces)
		batch.ReplaceNodes(o.nodes)
		batch.ReplaceServices(o.services)
		batch.ReplaceSlices(o.slices)
		batch.ReplaceIngressClasses(o.classes)
		batch.ReplaceSecrets(o.secrets)
		batch.ReplaceIngresses(o.ingresses)
		batch.ReplacePools(o.pools)
		batch.ReplaceDNSConfigs(o.dns)
		batch.ReplaceRivals(nil)
	})
}

// Parse adds the documents of one file. The name is for errors. An error is an *Error.
func (o *Objects) Parse(name string, data []byte) error {
	r := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			doc, err = yaml.YAMLToJSONStrict(doc)
		}
		if err != nil {
			return &Error{File: name, Document: n, Err: err}
		}
		if object, err := o.document(doc); err != nil {
			return &Error{File: name, Document: n, Object: object, Err: err}
		}
	}
}

// document adds one object, or the items of a List. A document without content is nothing.
func (o *Objects) document(doc []byte) (object string, err error) {
	if bytes.Equal(doc, []byte("null")) {
		return "", nil
	}
	var m metav1.PartialObjectMetadata
	if err := json.Unmarshal(doc, &m); err != nil {
		return "", err
	}
	object = m.Kind + " " + m.Name
	if m.Namespace != "" {
		object = m.Kind + " " + m.Namespace + "/" + m.Name
	}
	switch m.APIVersion + " " + m.Kind {
	case " " + m.Kind, m.APIVersion + " ":
		return m.Name, errors.New("apiVersion and kind must be given")
	case "v1 List", "v1 ServiceList", "v1 NodeList", "v1 NamespaceList", "discovery.k8s.io/v1 EndpointSliceList":
		return o.list(doc)
	case "v1 Service":
		return object, add(doc, o.service)
	case "discovery.k8s.io/v1 EndpointSlice":
		return object, add(doc, o.slice)
	case "networking.k8s.io/v1 Ingress":
		return object, add(doc, o.ingress)
	case "networking.k8s.io/v1 IngressClass":
		return object, add(doc, func(c *networkingv1.IngressClass) { o.classes = append(o.classes, source.IngressClass(c)) })
	case "v1 Secret":
		return object, add(doc, o.secret)
	case "v1 Node":
		return object, add(doc, func(n *corev1.Node) { o.nodes = append(o.nodes, source.Node(n)) })
	case "v1 ConfigMap":
		read := true
		err := add(doc, func(m *corev1.ConfigMap) { read = o.configMap(m) })
		if read {
			return object, err
		}
	case "v1 Namespace":
		return object, add(doc, func(n *corev1.Namespace) { o.namespace(n.Name) })
	}
	o.Skipped = append(o.Skipped, object)
	return object, nil
}

func (o *Objects) list(doc []byte) (object string, err error) {
	var l struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(doc, &l); err != nil {
		return "List", err
	}
	for _, item := range l.Items {
		if object, err := o.document(item); err != nil {
			return object, err
		}
	}
	return "", nil
}

// add decodes one object strictly and hands it on.
func add[T any](doc []byte, to func(*T)) error {
	var v T
	strict, err := strictjson.UnmarshalStrict(doc, &v, strictjson.DisallowUnknownFields, strictjson.DisallowDuplicateFields)
	if err == nil {
		err = errors.Join(strict...)
	}
	if err != nil {
		return err
	}
	to(&v)
	return nil
}

func (o *Objects) service(s *corev1.Service) {
	if s.Namespace == "" {
		s.Namespace = metav1.NamespaceDefault
	}
	o.namespace(s.Namespace)
	o.services = append(o.services, source.Service(s))
}

// slice fills in what the API would: the name and protocol of ports. Without a name a port would not count.
func (o *Objects) slice(s *discoveryv1.EndpointSlice) {
	if s.Namespace == "" {
		s.Namespace = metav1.NamespaceDefault
	}
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			s.Ports[i].Name = new(string)
		}
	}
	if c, ok := source.Slice(s); ok {
		o.slices = append(o.slices, c)
	}
}

// configMap reports whether m is one that matters.
func (o *Objects) configMap(m *corev1.ConfigMap) bool {
	if c, ok := source.DNSConfig(m); ok {
		o.dns = append(o.dns, c)
		return true
	}
	c, ok := source.Pools(m)
	if ok {
		o.pools = []*source.PoolConfig{c}
	}
	return ok
}

func (o *Objects) ingress(i *networkingv1.Ingress) {
	if i.Namespace == "" {
		i.Namespace = metav1.NamespaceDefault
	}
	o.namespace(i.Namespace)
	o.ingresses = append(o.ingresses, source.Ingress(i))
}

// secret takes certificates, given as data or as stringData. Other Secrets are nobody's business here.
func (o *Objects) secret(s *corev1.Secret) {
	if s.Namespace == "" {
		s.Namespace = metav1.NamespaceDefault
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	if c, ok := source.Secret(s); ok {
		o.secrets = append(o.secrets, c)
	}
}

func (o *Objects) namespace(name string) {
	if !slices.Contains(o.namespaces, name) {
		o.namespaces = append(o.namespaces, name)
	}
}
