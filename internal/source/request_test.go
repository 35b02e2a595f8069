package source_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
	"minato/internal/source"
)

func TestWhatAServiceAsksOfLoadBalancers(t *testing.T) {
	type notes map[string]string
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		name        string
		field       string
		annotations notes
		want        model.AddressRequest
	}{
		{"nothing", "", nil, model.AddressRequest{}},
		{"the field", "192.0.2.1", nil, model.AddressRequest{Addrs: []netip.Addr{four}}},
		{"a field as old APIs took it", "192.000.002.001", nil, model.AddressRequest{Addrs: []netip.Addr{four}}},
		{"both families", "", notes{"metallb.universe.tf/loadBalancerIPs": "192.0.2.1, 2001:db8::1"}, model.AddressRequest{Addrs: []netip.Addr{four, six}}},
		{"the prefix of today", "", notes{"metallb.io/loadBalancerIPs": "192.0.2.1"}, model.AddressRequest{Addrs: []netip.Addr{four}}},
		{"the same twice", "192.0.2.1", notes{"metallb.io/loadBalancerIPs": "192.0.2.1"}, model.AddressRequest{Addrs: []netip.Addr{four}}},
		{"a pool and a key", "", notes{"metallb.universe.tf/address-pool": "lan", "metallb.universe.tf/allow-shared-ip": "key"}, model.AddressRequest{Pool: "lan", Sharing: "key"}},
		{"no address", "here", nil, model.AddressRequest{Problem: `loadBalancerIP "here" is not an address`}},
		{"no address in the list", "", notes{"metallb.io/loadBalancerIPs": "192.0.2.1,here"}, model.AddressRequest{Problem: `annotation loadBalancerIPs "here" is not an address`}},
		{
			"two of a family", "", notes{"metallb.io/loadBalancerIPs": "192.0.2.1,192.0.2.2"},
			model.AddressRequest{Problem: `annotation loadBalancerIPs "192.0.2.1,192.0.2.2" asks for more than one address of a family`},
		},
		{
			"two that differ", "192.0.2.2", notes{"metallb.io/loadBalancerIPs": "192.0.2.1"},
			model.AddressRequest{Problem: `loadBalancerIP "192.0.2.2" and annotation loadBalancerIPs "192.0.2.1" ask for different addresses`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newService("web", "10.96.0.20", "")
			o.Spec.Type, o.Spec.LoadBalancerIP, o.Annotations = corev1.ServiceTypeLoadBalancer, tt.field, tt.annotations
			got := source.Service(o)
			if d := cmp.Diff(tt.want, got.LoadBalancer, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if warned := len(got.Warnings) > 0; warned != (tt.want.Problem != "") {
				t.Errorf("warnings: %q", got.Warnings)
			}
		})
	}
}

func TestAClassIsPartOfTheRequest(t *testing.T) {
	class := "example.com/cloud"
	o := newService("web", "10.96.0.20", "")
	o.Spec.Type, o.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, &class
	if got := source.Service(o).LoadBalancer.Class; got != class {
		t.Errorf("got %q", got)
	}
}

func TestOnlyALoadBalancerAsks(t *testing.T) {
	o := newService("web", "10.96.0.20", "")
	o.Spec.Type, o.Spec.LoadBalancerIP = corev1.ServiceTypeNodePort, "192.0.2.1"
	if got := source.Service(o).LoadBalancer; len(got.Addrs) > 0 {
		t.Errorf("asks for %v", got.Addrs)
	}
}
