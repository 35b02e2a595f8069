//go:build linux

package stress

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/model"
	"minato/internal/source"
	"minato/test/feed"
)

const (
	nodeAddr    = "172.30.0.11"
	outsideAddr = "172.30.0.9"
	services    = 6
)

var (
	here     = []string{"10.244.1.2", "10.244.1.3", "10.244.1.4"} // pods of the node
	there    = []string{"10.244.2.2", "10.244.2.3"}               // pods of another one
	protocol = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}
)

// objects are what the API has, and the source of what is random.
type objects struct {
	*rand.Rand
	node     *corev1.Node
	services map[int]*corev1.Service
	slices   map[int]*discoveryv1.EndpointSlice
}

func newObjects(r *rand.Rand) *objects {
	return &objects{Rand: r, services: map[int]*corev1.Service{}, slices: map[int]*discoveryv1.EndpointSlice{},
		node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1", Labels: map[string]string{corev1.LabelTopologyZone: "a"}},
			Spec:   corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr}}}}}
}

func (o *objects) bool() bool { return o.IntN(2) == 0 }

// policy names a traffic policy, seldom Local.
func policy[T ~string](o *objects) *T {
	p := T("Cluster")
	if o.IntN(3) == 0 {
		p = "Local"
	}
	return &p
}

// change changes something in the API, and says what.
func (o *objects) change(api *feed.Server) string {
	i := o.IntN(services)
	switch o.IntN(10) {
	case 0:
		if s := o.services[i]; s != nil {
			delete(o.services, i)
			api.Delete(s)
			return "delete Service " + s.Name
		}
		fallthrough
	case 1, 2, 3:
		o.services[i] = o.service(i)
		api.Set(o.services[i].DeepCopy())
		return "set Service " + o.services[i].Name
	case 4:
		if s := o.slices[i]; s != nil {
			delete(o.slices, i)
			api.Delete(s)
			return "delete EndpointSlice " + s.Name
		}
		fallthrough
	default:
		o.slices[i] = o.slice(i)
		api.Set(o.slices[i].DeepCopy())
		return "set EndpointSlice " + o.slices[i].Name
	case 9:
		o.node.Labels[corev1.LabelTopologyZone] = []string{"a", "b"}[o.IntN(2)]
		api.Set(o.node.DeepCopy())
		return "zone " + o.node.Labels[corev1.LabelTopologyZone]
	}
}

func (o *objects) service(i int) *corev1.Service {
	ip := fmt.Sprintf("10.96.0.%d", i+1)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("s", i)}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, InternalTrafficPolicy: policy[corev1.ServiceInternalTrafficPolicy](o)}}
	for k, p := range protocol {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: string(p), Protocol: p, Port: int32(80 + k)})
	}
	if o.IntN(3) > 0 {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = *policy[corev1.ServiceExternalTrafficPolicy](o)
		for k := range s.Spec.Ports {
			s.Spec.Ports[k].NodePort = int32(30000 + 10*i + k)
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprintf("172.30.0.%d", 200+i)}}
		s.Spec.LoadBalancerSourceRanges = [][]string{nil, nil, {"172.30.0.0/24"}, {"10.244.0.0/16", "192.0.2.0/24"}}[o.IntN(4)]
	}
	if o.bool() {
		s.Spec.ExternalIPs = []string{fmt.Sprintf("192.0.2.%d", 100+o.IntN(services))} // others may want it too
	}
	if o.IntN(3) == 0 {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	return s
}

func (o *objects) slice(i int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("s", i),
		Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("s", i)}}, AddressType: discoveryv1.AddressTypeIPv4}
	for _, p := range protocol {
		name, port := string(p), int32(8080)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &p})
	}
	hints := o.IntN(4) == 0
	add := func(addr, node string) {
		if o.IntN(3) == 0 {
			return
		}
		ready, serving, terminating := o.IntN(4) > 0, true, false
		if !ready {
			serving, terminating = o.bool(), o.bool()
		}
		e := discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}}
		if hints {
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: []string{"a", "b"}[o.IntN(2)]}}}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	for _, a := range here {
		add(a, "node1")
	}
	for _, a := range there {
		add(a, "node2")
	}
	return s
}

// snapshot is what the node is to come to.
func (o *objects) snapshot() *model.Snapshot {
	b := source.NewBuilder()
	b.Update(func(batch *source.Batch) {
		var all []*source.ServiceObject
		for _, s := range o.services {
			all = append(all, source.Service(s.DeepCopy()))
		}
		var slices []*source.SliceObject
		for _, s := range o.slices {
			if so, ok := source.Slice(s.DeepCopy()); ok {
				slices = append(slices, so)
			}
		}
		batch.ReplaceServices(all)
		batch.ReplaceSlices(slices)
		batch.ReplaceNodes([]*model.Node{source.Node(o.node.DeepCopy())})
		batch.ReplaceNamespaces([]string{"default"})
	})
	s := b.Current()
	return s.On(s.NodeNamed("node1"))
}
