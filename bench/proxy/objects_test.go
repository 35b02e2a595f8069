//go:build linux

package proxy

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/test/feed"
)

// size is a number of Services and of endpoints of each.
type size struct{ services, endpoints int }

func (s size) String() string { return fmt.Sprintf("%d x %d", s.services, s.endpoints) }

const (
	nodeName     = "node1"
	nodeAddr     = "172.30.0.11"
	serviceRange = "10.96.0.0/12"
	podRange     = "10.128.0.0/9"
	namespace    = "bench"
)

// serviceAddr is the ClusterIP of Service i.
func serviceAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 97 + byte(i>>16), byte(i >> 8), byte(i)})
}

// endpointAddr is endpoint i of all Services.
func endpointAddr(i int) netip.Addr {
	i += 256
	return netip.AddrFrom4([4]byte{10, 128 + byte(i>>16), byte(i >> 8), byte(i)})
}

// moved is an address that no endpoint has from the start.
func moved(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}) }

func name(i int) string { return fmt.Sprintf("s%05d", i) }

// slice is the only EndpointSlice of Service i, its first endpoint at first.
func (s size) slice(i int, first netip.Addr) *discoveryv1.EndpointSlice {
	yes, no, port, portName, tcp, node := true, false, int32(8080), "http", corev1.ProtocolTCP, "node2"
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i), Labels: map[string]string{discoveryv1.LabelServiceName: name(i)},
			Annotations: map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-01T00:00:00Z"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &tcp}},
	}
	for e := range s.endpoints {
		addr := endpointAddr(i*s.endpoints + e)
		if e == 0 && first.IsValid() {
			addr = first
		}
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no}})
	}
	return o
}

func service(i int) *corev1.Service {
	addr := serviceAddr(i).String()
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i)},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: addr, ClusterIPs: []string{addr}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}}
}

// middle is the Service to which connections are made, and last is the one that peers programme last. Their endpoint
// is a real server.
func (s size) middle() int { return s.services / 2 }
func (s size) last() int   { return s.services - 1 }

// api serves the objects of a size.
func (s size) api() *feed.Server {
	api := feed.New()
	api.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}, Spec: corev1.NodeSpec{PodCIDR: podRange, PodCIDRs: []string{podRange}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr}}}})
	api.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	api.Set(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{serviceRange}}})
	for i := range s.services {
		sl := s.slice(i, netip.Addr{})
		switch i {
		case s.middle():
			sl.Endpoints = sl.Endpoints[:1]
			sl.Endpoints[0].Addresses = []string{serverAddr.String()}
			*sl.Ports[0].Port = connectionPort
		case s.last():
			sl.Endpoints = sl.Endpoints[:1]
			sl.Endpoints[0].Addresses = []string{serverAddr.String()}
		}
		api.Set(service(i), sl)
	}
	return api
}
