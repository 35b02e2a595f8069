package source

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// loadBalancers reads status.loadBalancer.ingress. Every address is shown; returned are those which nodes answer
// for. An address of ipMode Proxy has its own machine in front (KEP-1860), and a host name is nothing to listen on.
func loadBalancers(s *model.Service, given []corev1.LoadBalancerIngress, w *warnings) []netip.Addr {
	var vips []netip.Addr
	for _, in := range given {
		if in.IP == "" {
			continue
		}
		a, ok := parseAddr(in.IP)
		if !ok {
			w.addf("load balancer address %q is not an address", in.IP)
			continue
		}
		s.LoadBalancerAddrs = append(s.LoadBalancerAddrs, a)
		vip := in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP
		if vip && usable(s, "load balancer address", a, w) {
			vips = append(vips, a)
		}
	}
	return vips
}

func externalIPs(s *model.Service, given []string, w *warnings) []netip.Addr {
	var out []netip.Addr
	for _, ip := range given {
		a, ok := parseAddr(ip)
		if !ok {
			w.addf("externalIP %q is not an address", ip)
			continue
		}
		if usable(s, "externalIP", a, w) {
			out = append(out, a)
		}
	}
	return out
}

// usable refuses addresses that only one machine can mean, and those of a family that the Service does not have:
// the families are independent, IPv4 backends never serve an IPv6 frontend.
func usable(s *model.Service, what string, a netip.Addr, w *warnings) bool {
	if why := unusable(a); why != "" {
		w.addf("%s %s cannot be used: it is %s", what, a, why)
		return false
	}
	if len(s.ClusterIPs) > 0 && !hasFamily(s, a.Is6()) {
		w.addf("%s %s cannot be used: the Service has no clusterIP of that family", what, a)
		return false
	}
	return true
}

func hasFamily(s *model.Service, ipv6 bool) bool {
	return slices.ContainsFunc(s.ClusterIPs, func(a netip.Addr) bool { return a.Is6() == ipv6 })
}

// frontends lists where a proxied Service answers, each address once. An address that is both a load balancer's and
// an externalIP is the former, so that loadBalancerSourceRanges hold for it.
func frontends(s *model.Service, balancers, externals []netip.Addr) []model.Frontend {
	var out []model.Frontend
	seen := map[claim]bool{}
	for _, p := range s.Ports {
		add := func(kind model.FrontendKind, a netip.Addr, port uint16) {
			f := model.Frontend{Addr: netip.AddrPortFrom(a, port), Protocol: p.Protocol, Kind: kind, PortName: p.Name}
			if k := (claim{f.Addr, f.Protocol}); !seen[k] {
				seen[k] = true
				out = append(out, f)
			}
		}
		for _, a := range s.ClusterIPs {
			add(model.ClusterIP, a, p.Port)
		}
		if p.NodePort != 0 && hasFamily(s, false) {
			add(model.NodePort, netip.IPv4Unspecified(), p.NodePort)
		}
		if p.NodePort != 0 && hasFamily(s, true) {
			add(model.NodePort, netip.IPv6Unspecified(), p.NodePort)
		}
		for _, a := range balancers {
			add(model.LoadBalancer, a, p.Port)
		}
		for _, a := range externals {
			add(model.ExternalIP, a, p.Port)
		}
	}
	return out
}
