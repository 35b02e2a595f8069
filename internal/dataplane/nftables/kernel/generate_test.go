//go:build linux

package kernel_test

import (
	"fmt"
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"minato/internal/model"
)

// Everything that generated Services can have, few of each so that they meet often.
var (
	genPods     = []string{"10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.2.2", "10.244.2.3", "fd00:244:1::2", "fd00:244:2::2"}
	genPorts    = []string{"http", "dns"}
	genNames    = []string{"a", "b", "c", "d"}
	genRanges   = [][]netip.Prefix{nil, {netip.MustParsePrefix("192.0.2.0/24")}, {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.244.0.0/16")}}
	genAffinity = []time.Duration{0, 0, time.Minute, time.Hour}
)

// genSnapshot makes the next world: some Services change, come or go, and now and then the node.
func genSnapshot(t *rapid.T, prev *model.Snapshot) *model.Snapshot {
	owner := rapid.Permutation(genNames).Draw(t, "owners of addresses")
	next := prev.With(func(e *model.Edit) {
		e.SetComplete()
		for i, n := range owner {
			name := model.ServiceName{Namespace: "default", Name: n}
			switch rapid.IntRange(0, 4).Draw(t, "fate of "+n) {
			case 0:
				e.DeleteService(name)
			case 1, 2:
				e.SetService(genService(t, name, i))
			default: // stays; its address may have been taken meanwhile, so it cannot stay as it is
				if prev.Service(name) != nil {
					e.SetService(genService(t, name, i))
				}
			}
		}
	})
	if rapid.IntRange(0, 9).Draw(t, "node changes") == 0 {
		n := *prev.Node
		n.Zone += "x"
		n.Addrs = []netip.Addr{netip.MustParseAddr(rapid.SampledFrom([]string{"172.30.0.11", "172.30.0.12"}).Draw(t, "address")),
			netip.MustParseAddr("fd00:30::11")}
		return next.On(&n)
	}
	return next.On(prev.Node)
}

func genService(t *rapid.T, name model.ServiceName, id int) *model.Service {
	policy := rapid.SampledFrom([]model.TrafficPolicy{model.Cluster, model.Local})
	s := &model.Service{Name: name, Proxied: true,
		InternalTrafficPolicy: policy.Draw(t, "internal"), ExternalTrafficPolicy: policy.Draw(t, "external"),
		SessionAffinity: rapid.SampledFrom(genAffinity).Draw(t, "affinity")}
	ips := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.96.0.%d", id+1)), netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", id+1))}
	s.ClusterIPs = ips[:rapid.IntRange(1, 2).Draw(t, "families")]
	for i, p := range genPorts {
		if !rapid.Bool().Draw(t, "has "+p) && i > 0 {
			continue
		}
		protocol := []model.Protocol{model.TCP, model.UDP}[i]
		add := func(k model.FrontendKind, a netip.Addr, port int) {
			s.Frontends = append(s.Frontends, model.Frontend{Addr: netip.AddrPortFrom(a, uint16(port)), Protocol: protocol, Kind: k, PortName: p})
		}
		for _, ip := range s.ClusterIPs {
			add(model.ClusterIP, ip, 80+i)
			if rapid.Bool().Draw(t, "node port") {
				add(model.NodePort, map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[ip.Is6()], 30000+10*id+i)
			}
		}
		if rapid.Bool().Draw(t, "load balancer") {
			add(model.LoadBalancer, netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", 200+id)), 80+i)
		}
		if rapid.Bool().Draw(t, "external") {
			add(model.ExternalIP, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 100+id)), 80+i)
		}
	}
	s.SourceRanges = rapid.SampledFrom(genRanges).Draw(t, "source ranges")
	s.Slices = []*model.BackendSlice{genSlice(t)}
	return s
}

func genSlice(t *rapid.T) *model.BackendSlice {
	sl := &model.BackendSlice{Name: "slice"}
	for i, port := range genPorts {
		for _, pod := range genPods {
			state := rapid.IntRange(0, 5).Draw(t, pod)
			if state == 0 {
				continue
			}
			addr := netip.MustParseAddr(pod)
			node := "node2"
			if node1().IsLocal(addr) {
				node = "node1"
			}
			sl.Backends = append(sl.Backends, model.Backend{Addr: netip.AddrPortFrom(addr, 8080),
				Protocol: []model.Protocol{model.TCP, model.UDP}[i], PortName: port, NodeName: node,
				Ready: state > 2, Serving: state != 1, Terminating: state <= 2})
		}
	}
	return sl
}
