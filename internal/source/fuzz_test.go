package source_test

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"minato/internal/model"
	"minato/internal/source"
)

// Anybody who may create objects can have them say anything that the API lets pass, and an older API let more pass.
// Whatever an object says, it is converted without a panic, what comes of it can be relied on, and when it is deleted
// nothing of it is left.

// hostile applies a batch that brings an object to a small world, checks the world, and takes the object away.
func hostile(t *testing.T, set, remove func(*source.Batch)) {
	t.Helper()
	b := complete(source.Service(newService("web", "10.96.0.1", "192.0.2.1")), source.Service(newService("db", "10.96.0.2", "")))
	b.Update(func(t2 *source.Batch) {
		t2.SetSlice(slice(t, newSlice("web-1", "web", "10.244.1.1", "10.244.2.1")))
		t2.SetNode(source.Node(&corev1.Node{}))
	})
	before := text(b.Current())
	b.Update(set)
	sound(t, b.Current())
	b.Update(remove)
	if after := text(b.Current()); after != before {
		t.Errorf("the object is deleted, and left behind:\n%s\nwas:\n%s", after, before)
	}
}

// sound checks what every reader of a snapshot relies on.
func sound(t *testing.T, s *model.Snapshot) {
	t.Helper()
	type claim struct {
		addr     any
		protocol model.Protocol
	}
	claims := map[claim]model.ServiceName{}
	for svc := range s.Services() {
		for _, f := range svc.Frontends {
			if !f.Addr.IsValid() || f.Addr.Port() == 0 || f.Protocol == 0 || f.Addr.Addr().Is4In6() || f.Addr.Addr().Zone() != "" {
				t.Errorf("%s has the frontend %+v", svc.Name, f)
			}
			c := claim{f.Addr, f.Protocol}
			if other, taken := claims[c]; taken {
				t.Errorf("%s and %s both have %+v", other, svc.Name, f)
			}
			claims[c] = svc.Name
			for n := range s.Nodes() {
				for _, scope := range []model.Scope{model.Inside, model.Outside} {
					for _, chosen := range model.Select(svc, f, n, scope).Backends {
						if chosen.Addr.Addr().Is6() != f.Addr.Addr().Is6() || !chosen.Addr.IsValid() {
							t.Errorf("%s sends %s to %s", svc.Name, f.Addr, chosen.Addr)
						}
					}
				}
			}
		}
	}
	_ = text(s)
}

// seed adds objects to the corpus, as JSON.
func seed(f *testing.F, objects ...any) {
	f.Helper()
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func FuzzService(f *testing.F) {
	balancer := newService("lb", "10.96.0.3", "010.0.0.1")
	balancer.Spec.Type = corev1.ServiceTypeLoadBalancer
	balancer.Spec.ClusterIPs = []string{"10.96.0.3", "fd00::3"}
	balancer.Spec.LoadBalancerSourceRanges = []string{" 192.168.3.0/8", "::/0", "x"}
	balancer.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	balancer.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	balancer.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "::ffff:192.0.2.7"}, {Hostname: "x"}, {IP: "fe80::1%eth0"}}
	seed(f, newService("web", "10.96.0.1", "192.0.2.1"), newService("other", "None", "127.0.0.1"), balancer)
	f.Fuzz(func(t *testing.T, b []byte) {
		var o corev1.Service
		if json.Unmarshal(b, &o) != nil || o.Namespace == "default" && (o.Name == "web" || o.Name == "db") {
			return
		}
		hostile(t, func(b *source.Batch) { b.SetService(source.Service(&o)) },
			func(b *source.Batch) { b.DeleteService(model.ServiceName{Namespace: o.Namespace, Name: o.Name}) })
	})
}

func FuzzSlice(f *testing.F) {
	six := newSlice("six", "web", "fd00::1", "10.0.0.1", "")
	six.AddressType = discoveryv1.AddressTypeIPv6
	six.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}, ForNodes: []discoveryv1.ForNode{{Name: ""}}}
	seed(f, newSlice("web-2", "web", "10.244.1.1", "010.244.1.2"), six)
	f.Fuzz(func(t *testing.T, b []byte) {
		var o discoveryv1.EndpointSlice
		if json.Unmarshal(b, &o) != nil || o.Namespace == "default" && o.Name == "web-1" {
			return
		}
		s, ok := source.Slice(&o)
		if !ok {
			return
		}
		hostile(t, func(b *source.Batch) { b.SetSlice(s) },
			func(b *source.Batch) { b.DeleteSlice(source.ObjectName{Namespace: o.Namespace, Name: o.Name}) })
	})
}

func FuzzNode(f *testing.F) {
	n := &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00::/0", "x/1"}}}
	n.Name = "node1"
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.30.0.11"}, {Type: corev1.NodeExternalIP, Address: "::"}}
	seed(f, n)
	f.Fuzz(func(t *testing.T, b []byte) {
		var o corev1.Node
		if json.Unmarshal(b, &o) != nil || o.Name == "" {
			return
		}
		hostile(t, func(b *source.Batch) { b.SetNode(source.Node(&o)) }, func(b *source.Batch) { b.DeleteNode(o.Name) })
	})
}

func FuzzIngress(f *testing.F) {
	prefix := networkingv1.PathTypePrefix
	o := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
		Host: "*.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: "/a//b/../%2f", PathType: &prefix,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		}, {}}}},
	}}}}
	seed(f, o)
	f.Fuzz(func(t *testing.T, b []byte) {
		var o networkingv1.Ingress
		if json.Unmarshal(b, &o) == nil {
			source.Ingress(&o)
		}
	})
}
