package model

import (
	"fmt"
	"io"
	"strings"
)

// WriteText prints the snapshot for people and golden files: one line for each Service, frontend and backend, sorted.
func (s *Snapshot) WriteText(w io.Writer) error {
	var b strings.Builder
	for n := range s.Nodes() {
		fmt.Fprintf(&b, "node %s addrs=%v pods=%v zone=%q ready=%t%s\n", n.Name, n.Addrs, n.PodCIDRs, n.Zone, n.Ready, n.attributes())
	}
	if s.LoadBalancing != nil {
		s.LoadBalancing.writeText(&b)
	}
	if s.DNS != nil {
		s.DNS.writeText(&b)
	}
	for n := range s.Namespaces() {
		fmt.Fprintf(&b, "namespace %s\n", n)
	}
	for svc := range s.Services() {
		svc.writeText(&b)
	}
	for i := range s.Ingresses() {
		i.writeText(&b)
	}
	for _, c := range s.conflicts {
		fmt.Fprintf(&b, "conflict %s/%s winner=%s loser=%s\n", c.Addr, c.Protocol, c.Winner, c.Loser)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Service) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "service %s type=%s%s\n", s.Name, s.Type, s.attributes())
	for _, p := range s.Ports {
		fmt.Fprintf(b, "  port %s/%d name=%q target=%s nodePort=%d\n", p.Protocol, p.Port, p.Name, p.TargetPort, p.NodePort)
	}
	for _, f := range s.Frontends {
		fmt.Fprintf(b, "  frontend %s\n", f)
	}
	for _, sl := range s.Slices {
		for i := range sl.Backends {
			fmt.Fprintf(b, "  backend %s slice=%s\n", &sl.Backends[i], sl.Name)
		}
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(b, "  warning %s\n", w)
	}
}

func (s *Service) attributes() string {
	var a []string
	add := func(on bool, format string, v ...any) {
		if on {
			a = append(a, " "+fmt.Sprintf(format, v...))
		}
	}
	add(s.Headless, "headless")
	add(!s.Proxied && !s.Headless && s.Type != TypeExternalName, "unproxied")
	add(s.ExternalName != "", "externalName=%s", s.ExternalName)
	add(len(s.ClusterIPs) > 0, "clusterIPs=%v", s.ClusterIPs)
	add(s.Selector != "", "selector=%s", s.Selector)
	add(s.InternalTrafficPolicy == Local, "internal=Local")
	add(s.ExternalTrafficPolicy == Local, "external=Local")
	add(s.SessionAffinity > 0, "affinity=%s", s.SessionAffinity)
	add(len(s.SourceRanges) > 0, "sources=%v", s.SourceRanges)
	add(s.HealthCheckNodePort > 0, "healthCheckNodePort=%d", s.HealthCheckNodePort)
	add(s.PublishNotReady, "publishNotReady")
	add(s.PreferSameNode, "prefer=SameNode")
	add(s.PreferSameZone, "prefer=SameZone")
	add(s.LoadBalancer.Class != "", "loadBalancerClass=%s", s.LoadBalancer.Class)
	add(len(s.LoadBalancer.Addrs) > 0, "asks=%v", s.LoadBalancer.Addrs)
	add(s.LoadBalancer.Pool != "", "asksPool=%s", s.LoadBalancer.Pool)
	add(s.LoadBalancer.Sharing != "", "sharing=%s", s.LoadBalancer.Sharing)
	add(len(s.LoadBalancerAddrs) > 0, "loadBalancerAddrs=%v", s.LoadBalancerAddrs)
	return strings.Join(a, "")
}

func (n *Node) attributes() (a string) {
	if n.NoLoadBalancers {
		a += " noLoadBalancers"
	}
	if n.Leaving {
		a += " leaving"
	}
	return a
}

func (f Frontend) String() string {
	return fmt.Sprintf("%s %s/%s port=%q", f.Kind, f.Addr, f.Protocol, f.PortName)
}

func (b *Backend) String() string {
	parts := []string{fmt.Sprintf("%s/%s port=%q", b.Addr, b.Protocol, b.PortName)}
	if b.Addr.Port() == 0 {
		parts[0] = b.Addr.Addr().String()
	}
	add := func(k, v string) {
		if v != "" {
			parts = append(parts, k+"="+v)
		}
	}
	add("node", b.NodeName)
	add("zone", b.Zone)
	add("hostname", b.Hostname)
	add("target", b.Target)
	add("forZones", strings.Join(b.ForZones, ","))
	add("forNodes", strings.Join(b.ForNodes, ","))
	parts = append(parts, b.Condition())
	return strings.Join(parts, " ")
}

// Condition is the backend's state in the words of EndpointSlice conditions.
func (b *Backend) Condition() string {
	var c []string
	for _, x := range []struct {
		on   bool
		name string
	}{{b.Ready, "ready"}, {b.Serving, "serving"}, {b.Terminating, "terminating"}} {
		if x.on {
			c = append(c, x.name)
		}
	}
	if len(c) == 0 {
		return "unready"
	}
	return strings.Join(c, "+")
}
