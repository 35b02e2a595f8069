package oracle

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world is a cluster as API objects, which both servers read.
type world struct {
	namespaces []string
	services   []*corev1.Service
	slices     []*discoveryv1.EndpointSlice
	pods       []pod
}

type pod struct{ namespace, ip string }

func pick[T any](r *rand.Rand, l ...T) T { return l[r.IntN(len(l))] }

// backendAddrs are few, so that Services share endpoints.
var backendAddrs = []string{"10.244.0.1", "10.244.0.2", "10.244.0.3", "192.0.2.9"}
var backendAddrs6 = []string{"fd00:20::1", "fd00:20::2", "fd00:20::"}

// randomWorld makes Services of every kind, with all that a slice may say.
func randomWorld(r *rand.Rand) *world {
	w := &world{namespaces: []string{"a", "b", "bare"}, pods: []pod{{"a", "10.244.0.1"}, {"b", "fd00:20::1"}}}
	free := r.Perm(200)
	for _, ns := range []string{"a", "b"} {
		for _, name := range []string{"x", "y", "z", "long-name-of-a-service"} {
			if r.IntN(6) > 0 {
				w.add(r, randomService(r, ns, name, free[0]))
				free = free[1:]
			}
		}
	}
	return w
}

func randomService(r *rand.Rand, ns, name string, unique int) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}}
	if r.IntN(5) == 0 {
		s.Spec.Type = corev1.ServiceTypeExternalName
		s.Spec.ExternalName = pick(r, "www.example.com", "x.a.svc.cluster.local", "y.b.svc.cluster.local", "192.0.2.1", "2001:db8::1",
			"z.a.svc.cluster.local", "nosuch.a.svc.cluster.local", "h0.x.a.svc.cluster.local", "10-1-2-3.a.pod.cluster.local")
		return s
	}
	switch v4, v6 := fmt.Sprintf("10.96.0.%d", 1+unique), fmt.Sprintf("fd00:10::%x", 1+unique); r.IntN(6) {
	case 0, 1:
		s.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	case 2:
		s.Spec.ClusterIPs = []string{v6}
	case 3:
		s.Spec.ClusterIPs = []string{v4, v6}
	default:
		s.Spec.ClusterIPs = []string{v4}
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	for i := range 1 + r.IntN(3) {
		p := corev1.ServicePort{Name: pick(r, "http", "dns", "sip", ""), Protocol: protocol(r), Port: pick[int32](r, 53, 80, 443)}
		if i > 0 {
			p.Name = fmt.Sprint("p", i)
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	return s
}

func protocol(r *rand.Rand) corev1.Protocol {
	return pick(r, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
}

// add puts a Service with up to three slices into the world.
func (w *world) add(r *rand.Rand, s *corev1.Service) {
	w.services = append(w.services, s)
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	for i := range r.IntN(4) {
		sl := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: fmt.Sprintf("%s-%d", s.Name, i), Labels: map[string]string{discoveryv1.LabelServiceName: s.Name},
		}}
		addrs := backendAddrs
		sl.AddressType = discoveryv1.AddressTypeIPv4
		if r.IntN(3) == 0 {
			sl.AddressType, addrs = discoveryv1.AddressTypeIPv6, backendAddrs6
		}
		for j := range r.IntN(3) {
			name, proto, port := pick(r, "http", "dns", "sip", ""), protocol(r), pick[int32](r, 53, 80, 8080)
			if j > 0 {
				name = fmt.Sprint("p", j)
			}
			sl.Ports = append(sl.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: &port})
		}
		for range r.IntN(4) {
			sl.Endpoints = append(sl.Endpoints, randomEndpoint(r, pick(r, addrs...)))
		}
		if len(w.slices) == 3 && sl.AddressType == discoveryv1.AddressTypeIPv4 { // one that no UDP reply holds
			for k := range 100 {
				sl.Endpoints = append(sl.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.9.%d", k)}})
			}
		}
		w.slices = append(w.slices, sl)
	}
}

func randomEndpoint(r *rand.Rand, addr string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{addr}}
	if yes := r.IntN(3) > 0; r.IntN(4) > 0 {
		e.Conditions.Ready = &yes
	}
	if h := pick(r, "", "", "h0", "h1"); h != "" {
		e.Hostname = &h
	}
	if r.IntN(2) == 0 {
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: pick(r, "pod-1", "pod-2")}
	}
	return e
}
