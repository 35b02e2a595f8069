//go:build linux

package netns_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
)

func TestClusterIPFromPodAndNode(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3)
	client := w.pod(9)
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3"))
	for _, network := range []string{"tcp", "udp"} {
		for _, from := range []struct {
			name, seenAs string
			ns           netns.NS
		}{{"pod", "10.244.1.9", client}, {"node", nodeAddr, w.node}} {
			t.Run(network+" from "+from.name, func(t *testing.T) {
				a := netnstest.MustAsk(t, from.ns, network, "10.96.0.1:80")
				if !strings.HasPrefix(a.Name, "10.244.1.") || a.Peer.String() != from.seenAs {
					t.Errorf("answered by %s, which saw %s; want it to see %s", a.Name, a.Peer, from.seenAs)
				}
			})
		}
	}
}

func TestNodePortFromOutsideComesFromTheNodesAddress(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	for _, network := range []string{"tcp", "udp"} {
		a := netnstest.MustAsk(t, w.outside, network, nodeAddr+":30001")
		if a.Peer.String() != nodeAddr {
			t.Errorf("%s: the pod saw %s, want the node's address", network, a.Peer)
		}
	}
}

func TestPodReachesItselfByItsServiceUnderTheNodesAddress(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	a := netnstest.MustAsk(t, w.pod(2), "tcp", "10.96.0.1:80")
	if a.Name != "10.244.1.2" || a.Peer.String() != nodeAddr {
		t.Errorf("answered by %s, which saw %s", a.Name, a.Peer)
	}
}

func TestServiceWithoutEndpointsRefusesAtOnce(t *testing.T) {
	w := newWorld(t)
	client := w.pod(9)
	w.apply(w.service("none", 1, nil))
	for _, c := range []struct {
		from             netns.NS
		network, address string
		want             error
	}{
		{client, "tcp", "10.96.0.1:80", syscall.ECONNREFUSED},
		{client, "udp", "10.96.0.1:80", syscall.ECONNREFUSED},
		{w.node, "tcp", "10.96.0.1:80", syscall.ECONNREFUSED},
		{w.node, "udp", "10.96.0.1:80", syscall.EPERM}, // what sendto says of a packet that a rule of its own host refuses
		{w.outside, "tcp", nodeAddr + ":30001", syscall.ECONNREFUSED},
		{w.outside, "udp", nodeAddr + ":30001", syscall.ECONNREFUSED},
	} {
		if _, err := netnstest.Ask(c.from, c.network, c.address); !errors.Is(err, c.want) {
			t.Errorf("%s %s from %s: got %v, want %v", c.network, c.address, c.from, err, c.want)
		}
	}
}

func TestRestOfTheServiceRange(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	client := w.pod(9)
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	if _, err := netnstest.Ask(client, "tcp", "10.96.0.1:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that is none: got %v, want connection refused", err)
	}
	if _, err := netnstest.Ask(client, "tcp", "10.96.0.77:80"); !timedOut(err) {
		t.Errorf("an address that is none: got %v, want silence", err)
	}
}

func TestPolicyLocalKeepsTheClientsAddressAndDropsWhereNoEndpointIs(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	local := func(s *model.Service) { s.ExternalTrafficPolicy = model.Local }
	w.apply(w.service("here", 1, local, "10.244.1.2"), w.service("there", 2, local, farPod))
	if a := netnstest.MustAsk(t, w.outside, "tcp", nodeAddr+":30001"); a.Peer.String() != outsideAddr {
		t.Errorf("the pod saw %s, want the client's address", a.Peer)
	}
	if _, err := netnstest.Ask(w.outside, "tcp", nodeAddr+":30002"); !timedOut(err) {
		t.Errorf("without an endpoint on the node: got %v, want silence", err)
	}
	netnstest.ServeTCP(t, w.outside, farPod, farPod+":8080")
	if a := netnstest.MustAsk(t, w.pod(9), "tcp", nodeAddr+":30002"); a.Name != farPod {
		t.Errorf("from a pod of the node: answered by %s, want %s", a.Name, farPod)
	}
}

func TestLoadBalancerAddressServesClientsInRangeOnly(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	client := w.pod(9)
	w.run(w.outside, "ip route add 172.30.0.200/31 via "+nodeAddr)
	w.apply(w.service("open", 1, balanced("172.30.0.200:80"), "10.244.1.2"),
		w.service("guarded", 2, balanced("172.30.0.201:80", "10.0.0.0/8", "192.0.2.0/24"), "10.244.1.2"))
	if a := netnstest.MustAsk(t, w.outside, "tcp", "172.30.0.200:80"); a.Peer.String() != nodeAddr {
		t.Errorf("the pod saw %s, want the node's address", a.Peer)
	}
	netnstest.MustAsk(t, client, "tcp", "172.30.0.201:80")
	if _, err := netnstest.Ask(w.outside, "tcp", "172.30.0.201:80"); !timedOut(err) {
		t.Errorf("a client out of range: got %v, want silence", err)
	}
	netnstest.MustAsk(t, w.outside, "tcp", nodeAddr+":30002") // ranges do not hold for node ports
	w.listing()
}

func TestBalanceIsEven(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	client := w.pod(9)
	w.apply(w.service("web", 1, nil, "10.244.1.2", "10.244.1.3", "10.244.1.4"))
	const n = 900
	got := map[string]int{}
	for range n {
		got[netnstest.MustAsk(t, client, "tcp", "10.96.0.1:80").Name]++
	}
	for _, pod := range []string{"10.244.1.2", "10.244.1.3", "10.244.1.4"} {
		if got[pod] < 230 || got[pod] > 370 { // 300, five standard deviations of 14 to either side
			t.Errorf("%s got %d of %d connections: %v", pod, got[pod], n, got)
		}
	}
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	client := w.pod(9)
	dual := func(s *model.Service) {
		ip := netip.MustParseAddr("fd00:96::1")
		s.ClusterIPs = append(s.ClusterIPs, ip)
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			s.Frontends = append(s.Frontends,
				model.Frontend{Addr: netip.AddrPortFrom(ip, 80), Protocol: p, PortName: p.String()},
				model.Frontend{Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), 30001), Protocol: p, Kind: model.NodePort, PortName: p.String()})
		}
	}
	w.apply(w.service("web", 1, dual, "fd00:244:1::2"))
	for _, network := range []string{"tcp", "udp"} {
		if a := netnstest.MustAsk(t, client, network, "[fd00:96::1]:80"); a.Peer.String() != "fd00:244:1::9" {
			t.Errorf("%s: the pod saw %s", network, a.Peer)
		}
		if a := netnstest.MustAsk(t, w.outside, network, "["+nodeAddr6+"]:30001"); a.Peer.String() != nodeAddr6 {
			t.Errorf("%s node port: the pod saw %s, want the node's address", network, a.Peer)
		}
	}
	if _, err := netnstest.Ask(client, "tcp", "10.96.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("IPv4 frontend without IPv4 endpoints: got %v, want connection refused", err)
	}
	if _, err := netnstest.Ask(client, "tcp", "[fd00:96::1]:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that is none: got %v, want connection refused", err)
	}
}

func TestAffinityHoldsUntilTheEndpointGoes(t *testing.T) {
	w := newWorld(t)
	w.serve(2, 3, 4)
	client := w.pod(9)
	sticky := func(s *model.Service) { s.SessionAffinity = time.Minute }
	w.apply(w.service("web", 1, sticky, "10.244.1.2", "10.244.1.3", "10.244.1.4"))
	stays := func() string {
		t.Helper()
		first := netnstest.MustAsk(t, client, "tcp", "10.96.0.1:80").Name
		for range 30 {
			if a := netnstest.MustAsk(t, client, "tcp", "10.96.0.1:80"); a.Name != first {
				t.Fatalf("answered by %s after %s", a.Name, first)
			}
		}
		return first
	}
	first := stays()
	var others []string
	for _, e := range []string{"10.244.1.2", "10.244.1.3", "10.244.1.4"} {
		if e != first {
			others = append(others, e)
		}
	}
	w.apply(w.service("web", 1, sticky, others...))
	if second := stays(); second == first {
		t.Errorf("still answered by %s, which is gone", second)
	}
}

// timedOut says whether nothing at all came back.
func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// balanced gives a Service an address of a load balancer, for TCP.
func balanced(addr string, ranges ...string) func(*model.Service) {
	return func(s *model.Service) {
		s.Type = model.TypeLoadBalancer
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP,
			Kind: model.LoadBalancer, PortName: "tcp"})
		for _, r := range ranges {
			s.SourceRanges = append(s.SourceRanges, netip.MustParsePrefix(r))
		}
	}
}

func TestLoadBalancerAddressAnswersPings(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	client := w.pod(9)
	w.run(w.outside, "ip route add 172.30.0.200/32 via "+nodeAddr)
	lb := func(s *model.Service) {
		balanced("172.30.0.200:80")(s)
		balanced("[fd00:31::200]:80")(s)
	}
	w.apply(w.service("web", 1, lb, "10.244.1.2", "fd00:244:1::2"))
	for _, addr := range []string{"172.30.0.200", "fd00:31::200"} {
		for _, from := range []netns.NS{w.outside, client, w.node} {
			if err := ping(from, addr); err != nil {
				t.Errorf("ping %s from %s: %v", addr, from, err)
			}
		}
	}
	w.apply(w.service("web", 1, nil, "10.244.1.2"))
	for _, addr := range []string{"172.30.0.200", "fd00:31::200"} {
		if err := ping(client, addr); err == nil {
			t.Errorf("%s answers, and is nobody's any more", addr)
		}
	}
}

func TestUndefinedPortOfALoadBalancerAddressIsNotPassedOn(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	client := w.pod(9)
	external := func(s *model.Service) {
		s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.MustParseAddrPort("192.0.2.7:80"), Protocol: model.TCP,
			Kind: model.ExternalIP, PortName: "tcp"})
	}
	w.run(w.outside, "ip address add 192.0.2.6/32 dev lo", "ip address add 192.0.2.7/32 dev lo")
	for _, addr := range []string{"192.0.2.6", "192.0.2.7"} { // both could be reached: what keeps packets away is a rule
		netnstest.ServeTCP(t, w.outside, addr, addr+":81")
	}
	w.apply(w.service("balanced", 1, balanced("192.0.2.6:80"), "10.244.1.2"), w.service("external", 2, external, "10.244.1.2"))
	netnstest.MustAsk(t, client, "tcp", "192.0.2.6:80")
	if _, err := netnstest.Ask(client, "tcp", "192.0.2.6:81"); !timedOut(err) {
		t.Errorf("another port of a load balancer's address: got %v, want silence", err)
	}
	if a := netnstest.MustAsk(t, client, "tcp", "192.0.2.7:81"); a.Name != "192.0.2.7" {
		t.Errorf("another port of an external IP: answered by %s, want the machine that has the address", a.Name)
	}
}
