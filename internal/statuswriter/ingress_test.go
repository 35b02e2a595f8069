package statuswriter

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/status"
)

// proxies says which nodes' proxies listen.
type proxies struct {
	mu sync.Mutex
	on map[string]bool
}

func (p *proxies) set(node string, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on[node] = on
}

func (p *proxies) listening(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.on[node]
}

// ingressWorld is an IngressWriter at an API with two nodes, whose proxies listen.
type ingressWorld struct {
	t       *testing.T
	client  *fake.Clientset
	writer  *IngressWriter
	builder *source.Builder
	board   *status.Board
	proxies *proxies
	events  chan string
}

func newIngressWorld(t *testing.T, objects ...runtime.Object) *ingressWorld {
	t.Helper()
	for name, addr := range map[string]string{"node1": "172.30.0.11", "node2": "172.30.0.12"} {
		objects = append(objects, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}},
		})
	}
	recorder := record.NewFakeRecorder(100)
	w := &ingressWorld{t: t, client: fake.NewClientset(objects...), proxies: &proxies{on: map[string]bool{"node1": true, "node2": true}}, events: recorder.Events}
	builder := source.NewBuilder()
	w.builder, w.board = builder, new(status.Board)
	w.writer = NewIngressWriter(IngressConfig{
		Client: w.client, Source: builder, Listening: w.proxies.listening, Board: w.board, Log: slog.New(slog.DiscardHandler),
		Recorder: recorder, Settle: 100 * time.Millisecond, Retry: 10 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return kube.Run(ctx, w.client, builder) }, w.writer.Run,
	} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	if err := builder.WaitComplete(ctx); err != nil {
		t.Fatal(err)
	}
	w.eventually("the sources to be read", func() bool { return builder.Current().IngressesKnown })
	return w
}

func (w *ingressWorld) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("never came: %s", what)
		}
	}
}

func newAPIIngress(name, class string) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u-1"},
		Spec: networkingv1.IngressSpec{
			IngressClassName: &class,
			DefaultBackend:   &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		},
	}
}

func (w *ingressWorld) create(i *networkingv1.Ingress) {
	w.t.Helper()
	if _, err := w.client.NetworkingV1().Ingresses(i.Namespace).Create(w.t.Context(), i, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// addresses are those in the status of an Ingress.
func (w *ingressWorld) addresses(name string) string {
	i, err := w.client.NetworkingV1().Ingresses("default").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, in := range i.Status.LoadBalancer.Ingress {
		all = append(all, in.IP)
	}
	return strings.Join(all, " ")
}

// endpoints are the nodes behind the Service in front by IPv4, or "none".
func (w *ingressWorld) endpoints() string { return w.slice(Front.Name) }

// slice is what a slice of the Service in front holds, or "none".
func (w *ingressWorld) slice(name string) string {
	slice, err := w.client.DiscoveryV1().EndpointSlices(Front.Namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "none"
	}
	var all []string
	for _, e := range slice.Endpoints {
		all = append(all, *e.NodeName+"="+e.Addresses[0])
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestTheClassIsMadeOnlyWhereThereIsNone(t *testing.T) {
	w := newIngressWorld(t)
	w.eventually("the class", func() bool {
		c, err := w.client.NetworkingV1().IngressClasses().Get(t.Context(), "minato", metav1.GetOptions{})
		return err == nil && c.Spec.Controller == source.IngressController && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	other := newIngressWorld(t, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}})
	other.create(newAPIIngress("site", "nginx"))
	other.eventually("the first round", func() bool { return len(other.client.Actions()) > 0 })
	if all, err := other.client.NetworkingV1().IngressClasses().List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) != 1 {
		t.Errorf("beside another class: %v %v", all.Items, err)
	}
}

func TestTheFrontIsThereWhileThereIsAnIngress(t *testing.T) {
	w := newIngressWorld(t)
	if w.endpoints() != "none" {
		t.Error("there is a Service before there is an Ingress")
	}
	w.create(newAPIIngress("site", "minato"))
	w.eventually("the endpoints", func() bool { return w.endpoints() == "node1=172.30.0.11 node2=172.30.0.12" })
	svc, err := w.client.CoreV1().Services(Front.Namespace).Get(t.Context(), Front.Name, metav1.GetOptions{})
	if err != nil || svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal || svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		t.Fatalf("%+v %v", svc, err)
	}
	w.proxies.set("node2", false)
	w.writer.Wake()
	w.eventually("the node that does not listen to go", func() bool { return w.endpoints() == "node1=172.30.0.11" })
	if err := w.client.NetworkingV1().Ingresses("default").Delete(t.Context(), "site", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("Service and endpoints to go", func() bool {
		_, err := w.client.CoreV1().Services(Front.Namespace).Get(t.Context(), Front.Name, metav1.GetOptions{})
		return err != nil && w.endpoints() == "none"
	})
}

func TestTheFrontHasEndpointsOfBothFamilies(t *testing.T) {
	node := func(name string, addrs ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, a := range addrs {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		return n
	}
	w := newIngressWorld(t, node("both", "172.30.0.13", "fd00:172:30::13"), node("six", "fd00:172:30::14"))
	w.proxies.set("both", true)
	w.proxies.set("six", true)
	w.create(newAPIIngress("site", "minato"))
	w.eventually("endpoints of IPv4", func() bool { return w.endpoints() == "both=172.30.0.13 node1=172.30.0.11 node2=172.30.0.12" })
	w.eventually("endpoints of IPv6", func() bool { return w.slice("minato-ingress-ipv6") == "both=fd00:172:30::13 six=fd00:172:30::14" })
	for name, want := range map[string]discoveryv1.AddressType{Front.Name: discoveryv1.AddressTypeIPv4, "minato-ingress-ipv6": discoveryv1.AddressTypeIPv6} {
		slice, err := w.client.DiscoveryV1().EndpointSlices(Front.Namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || slice.AddressType != want {
			t.Errorf("%s has addresses of type %s, want %s: %v", name, slice.AddressType, want, err)
		}
	}
	w.proxies.set("both", false)
	w.writer.Wake()
	w.eventually("the node to leave both", func() bool {
		return w.endpoints() == "node1=172.30.0.11 node2=172.30.0.12" && w.slice("minato-ingress-ipv6") == "six=fd00:172:30::14"
	})
	if err := w.client.NetworkingV1().Ingresses("default").Delete(t.Context(), "site", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("both slices to go", func() bool { return w.endpoints() == "none" && w.slice("minato-ingress-ipv6") == "none" })
}

func TestAServiceOfTheNameThatIsNotOursIsLeftAlone(t *testing.T) {
	theirs := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: Front.Namespace, Name: Front.Name}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7"}}
	w := newIngressWorld(t, theirs)
	w.create(newAPIIngress("site", "minato"))
	w.eventually("the status", func() bool { return w.addresses("site") == "172.30.0.11 172.30.0.12" })
	if w.endpoints() != "none" {
		t.Error("it has got endpoints")
	}
	if err := w.client.NetworkingV1().Ingresses("default").Delete(t.Context(), "site", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("a round without Ingress", func() bool {
		s := w.builder.Current()
		return s.Ingress(model.IngressName{Namespace: "default", Name: "site"}) == nil && slices.ContainsFunc(w.board.Entries(), func(e status.Entry) bool {
			return e.Component == IngressComponent && e.Applied >= s.Revision
		})
	})
	if _, err := w.client.CoreV1().Services(Front.Namespace).Get(t.Context(), Front.Name, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestStatusIsTheLoadBalancersAddressOrElseTheNodes(t *testing.T) {
	w := newIngressWorld(t)
	w.create(newAPIIngress("site", "minato"))
	w.eventually("addresses of nodes", func() bool { return w.addresses("site") == "172.30.0.11 172.30.0.12" })
	svc, err := w.client.CoreV1().Services(Front.Namespace).Get(t.Context(), Front.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "172.30.0.200"}}
	if _, err := w.client.CoreV1().Services(Front.Namespace).UpdateStatus(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the load balancer's address", func() bool { return w.addresses("site") == "172.30.0.200" })
	w.create(newAPIIngress("another", "minato"))
	w.eventually("the same for a new Ingress", func() bool { return w.addresses("another") == "172.30.0.200" })
	w.create(newAPIIngress("theirs", "nginx"))
	w.create(newAPIIngress("last", "minato"))
	w.eventually("a later Ingress", func() bool { return w.addresses("last") == "172.30.0.200" })
	if got := w.addresses("theirs"); got != "" {
		t.Errorf("an Ingress of another class has %s", got)
	}
}

func TestProblemsAreToldOnceWhenTheyLast(t *testing.T) {
	w := newIngressWorld(t)
	w.create(newAPIIngress("site", "minato"))
	const want = "Warning NotAsWritten create Service default/web"
	select {
	case e := <-w.events:
		if !strings.HasPrefix(e, want) {
			t.Errorf("told %q", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told")
	}
	w.create(newAPIIngress("second", "minato")) // makes more rounds
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := w.client.CoreV1().Services("default").Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-w.events:
		if !strings.Contains(e, "the default backend of rules without a host is that of the older Ingress") {
			t.Errorf("told of what did not last, or twice: %q", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second Ingress is not told")
	}
}

func TestAnIngressThatChangesToAnotherClassLosesItsAddresses(t *testing.T) {
	w := newIngressWorld(t)
	w.create(newAPIIngress("site", "minato"))
	w.create(newAPIIngress("stays", "minato"))
	w.eventually("addresses", func() bool { return w.addresses("site") != "" && w.addresses("stays") != "" })
	moved, err := w.client.NetworkingV1().Ingresses("default").Get(t.Context(), "site", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := "nginx"
	moved.Spec.IngressClassName = &other
	if _, err := w.client.NetworkingV1().Ingresses("default").Update(t.Context(), moved, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the status to be empty", func() bool { return w.addresses("site") == "" })
	theirs := newAPIIngress("theirs", "nginx")
	theirs.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.7"}}
	w.create(theirs)
	w.create(newAPIIngress("last", "minato"))
	w.eventually("a later round", func() bool { return w.addresses("last") != "" })
	if w.addresses("theirs") != "192.0.2.7" || w.addresses("stays") == "" {
		t.Errorf("theirs %q, stays %q", w.addresses("theirs"), w.addresses("stays"))
	}
}
