// Package health plans the answers to load balancers outside the cluster which ask a node, at a Service's
// healthCheckNodePort, whether to send traffic for that Service to it.
//
// Such a port exists for Services of type LoadBalancer with externalTrafficPolicy Local. A node has as much weight as
// it has ready endpoints with different addresses. Those that terminate do not count, though they still get traffic:
// so the load balancer turns away before the last one is gone. Answers are those of kube-proxy
// (k8s.io/kubernetes/pkg/proxy/healthcheck/service_health.go), which asks the two IP families apart.
//
// A plan is a pure function of a snapshot. It opens no ports: package server below it does.
package health

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"

	"minato/internal/model"
)

// Check is what one node answers for one Service.
type Check struct {
	Service    model.ServiceName
	Port       uint16
	IPv4, IPv6 int // ready endpoints of the family on the node, each address once
}

// Plan is the Checks of a node. It is immutable; a nil Plan has none.
type Plan struct {
	Checks map[model.ServiceName]Check

	of *model.Snapshot
}

// Next is the plan of a snapshot. Only Services that differ from the snapshot of p are looked at, unless the node is
// another one.
func (p *Plan) Next(s *model.Snapshot) *Plan {
	next := &Plan{Checks: map[model.ServiceName]Check{}, of: s}
	var before *model.Snapshot
	if p != nil && p.of != nil && nodeName(p.of) == nodeName(s) {
		before = p.of
		maps.Copy(next.Checks, p.Checks)
	}
	for _, c := range model.Diff(before, s).Services {
		if check, ok := of(c.New, s.Node); ok {
			next.Checks[c.Name] = check
		} else {
			delete(next.Checks, c.Name)
		}
	}
	return next
}

func nodeName(s *model.Snapshot) string {
	if s.Node == nil {
		return ""
	}
	return s.Node.Name
}

// of plans one Service. ok is false when it has no port to ask at.
func of(s *model.Service, n *model.Node) (c Check, ok bool) {
	if s == nil || n == nil || !s.Proxied || s.Type != model.TypeLoadBalancer || s.HealthCheckNodePort == 0 ||
		s.ExternalTrafficPolicy != model.Local {
		return Check{}, false
	}
	addrs := map[netip.Addr]bool{}
	for _, p := range s.Ports {
		for _, ip := range s.ClusterIPs {
			f := model.Frontend{Addr: netip.AddrPortFrom(ip, p.Port), Protocol: p.Protocol, Kind: model.LoadBalancer, PortName: p.Name}
			sel := model.Select(s, f, n, model.Outside)
			for _, b := range sel.Backends {
				if !sel.Fallback {
					addrs[b.Addr.Addr()] = true
				}
			}
		}
	}
	c = Check{Service: s.Name, Port: s.HealthCheckNodePort}
	for a := range addrs {
		if a.Is6() {
			c.IPv6++
		} else {
			c.IPv4++
		}
	}
	return c, true
}

// Least is a Check that promises no more than either of the two does.
func (c Check) Least(o Check) Check {
	c.IPv4, c.IPv6 = min(c.IPv4, o.IPv4), min(c.IPv6, o.IPv6)
	return c
}

// Answer is an answer over HTTP.
type Answer struct {
	Status int
	Weight string // header X-Load-Balancing-Endpoint-Weight
	Body   string // JSON
}

// Answer is the answer at an address of the family. With healthy false the node turns all traffic away, because its
// data path may be out of date.
func (c Check) Answer(ipv6, healthy bool) Answer {
	n := c.IPv4
	if ipv6 {
		n = c.IPv6
	}
	a := Answer{Status: 503, Weight: strconv.Itoa(n)}
	if n > 0 && healthy {
		a.Status = 200
	}
	a.Body = fmt.Sprintf("{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %t\n}",
		c.Service.Namespace, c.Service.Name, n, healthy)
	return a
}
