package apiserver

import (
	"net"
	"net/netip"
	"testing"

	"k8s.io/client-go/kubernetes/fake"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
)

// TestServicesWaitForAddressesOfEveryFamily has addresses of IPv6 come later than those of IPv4. A Service that is made in
// between keeps an address without being there, and then cannot be made for a minute.
func TestServicesWaitForAddressesOfEveryFamily(t *testing.T) {
	ready := func(cidr string) ipallocator.Interface {
		_, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ipallocator.NewInMemory(n)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	client := fake.NewClientset()
	s := &Server{
		client: client,
		cfg: Config{
			Advertise: netip.MustParseAddrPort("172.30.0.1:6443"), ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
			DNSAddrs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a")},
		},
		clusterIPs: map[api.IPFamily]ipallocator.Interface{api.IPv4Protocol: ready("10.96.0.0/24"), api.IPv6Protocol: &ipallocator.Allocator{}},
	}
	endpoints := reconcilers.NewMasterCountEndpointReconciler(1, reconcilers.NewEndpointsAdapter(client.CoreV1(), client.DiscoveryV1()))
	if err := s.ensureServices(t.Context(), endpoints); err == nil || len(client.Actions()) > 0 {
		t.Fatalf("the API was asked %d times before there were addresses: %v", len(client.Actions()), err)
	}
	s.clusterIPs[api.IPv6Protocol] = ready("fd00:10:96::/112")
	if err := s.ensureServices(t.Context(), endpoints); err != nil || len(client.Actions()) == 0 {
		t.Fatalf("the Services were not made: %v", err)
	}
}
