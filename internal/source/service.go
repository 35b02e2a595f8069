package source

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"minato/internal/model"
)

// labelProxyName hands a Service over to another proxy (KEP-2447).
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// defaultAffinity is the API's default of sessionAffinityConfig.clientIP.timeoutSeconds.
const defaultAffinity = 10800 * time.Second

// ServiceObject is what one Service object says by itself: without its EndpointSlices, and with every frontend it
// asks for, also those that another Service holds.
type ServiceObject struct{ model.Service }

func (o *ServiceObject) equal(p *ServiceObject) bool {
	return reflect.DeepEqual(&o.Service, &p.Service)
}

// Service converts an API object. It is pure and never fails: what cannot be used is left out, and a Warning of the
// Service says so. The rules are kube-proxy's (k8s.io/kubernetes/pkg/proxy/serviceport.go, proxy/util).
func Service(o *corev1.Service) *ServiceObject {
	var w warnings
	spec := &o.Spec
	out := &ServiceObject{}
	s := &out.Service
	s.Created = o.CreationTimestamp.UTC() // UTC, so that equal times compare equal however they were read
	s.Name = model.ServiceName{Namespace: o.Namespace, Name: o.Name}
	s.Type = serviceType(spec.Type)
	s.Headless = spec.ClusterIP == corev1.ClusterIPNone
	s.Selector = selector(spec.Selector)
	s.PublishNotReady = spec.PublishNotReadyAddresses
	s.Ports = ports(spec.Ports, &w)
	if s.Type == model.TypeExternalName {
		s.Headless = false
		s.ExternalName = spec.ExternalName
	} else if !s.Headless {
		s.ClusterIPs = clusterIPs(spec, &w)
	}
	policies(s, spec)
	s.SessionAffinity = affinity(spec)
	s.SourceRanges = sourceRanges(spec.LoadBalancerSourceRanges, &w)
	s.LoadBalancer = addressRequest(o, &w)
	balancers := loadBalancers(s, o.Status.LoadBalancer.Ingress, &w)
	_, other := o.Labels[labelProxyName]
	if s.Proxied = len(s.ClusterIPs) > 0 && !other; s.Proxied {
		s.Frontends = frontends(s, balancers, externalIPs(s, spec.ExternalIPs, &w))
	}
	s.Warnings = w.all()
	return out
}

func serviceType(t corev1.ServiceType) model.ServiceType {
	switch t {
	case corev1.ServiceTypeNodePort:
		return model.TypeNodePort
	case corev1.ServiceTypeLoadBalancer:
		return model.TypeLoadBalancer
	case corev1.ServiceTypeExternalName:
		return model.TypeExternalName
	}
	return model.TypeClusterIP
}

func selector(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for k, v := range labels {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

func ports(all []corev1.ServicePort, w *warnings) []model.Port {
	var out []model.Port
	for i := range all {
		p := &all[i]
		protocol, ok := parseProtocol(p.Protocol)
		if !ok {
			w.addf("port %q has an unknown protocol %q", p.Name, p.Protocol)
			continue
		}
		number, ok := parsePort(p.Port)
		if !ok {
			w.addf("port %q has no usable number: %d", p.Name, p.Port)
			continue
		}
		port := model.Port{Name: p.Name, Protocol: protocol, Port: number, TargetPort: p.TargetPort.String()}
		if p.TargetPort == (intstr.IntOrString{}) {
			port.TargetPort = strconv.Itoa(int(p.Port))
		}
		if p.AppProtocol != nil {
			port.AppProtocol = *p.AppProtocol
		}
		if p.NodePort != 0 {
			if port.NodePort, ok = parsePort(p.NodePort); !ok {
				port.NodePort = 0
				w.addf("port %q has no usable nodePort: %d", p.Name, p.NodePort)
			}
		}
		out = append(out, port)
	}
	return out
}

func clusterIPs(spec *corev1.ServiceSpec, w *warnings) []netip.Addr {
	given := spec.ClusterIPs
	if len(given) == 0 && spec.ClusterIP != "" {
		given = []string{spec.ClusterIP}
	}
	if len(given) == 0 {
		w.addf("it has no clusterIP; the API gives one when the Service is created there")
	}
	var out []netip.Addr
	for _, s := range given {
		if a, ok := parseAddr(s); ok {
			out = append(out, a)
		} else {
			w.addf("clusterIP %q is not an address", s)
		}
	}
	return out
}

func policies(s *model.Service, spec *corev1.ServiceSpec) {
	if p := spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		s.InternalTrafficPolicy = model.Local
	}
	external := s.Type == model.TypeNodePort || s.Type == model.TypeLoadBalancer || len(spec.ExternalIPs) > 0
	if external && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		s.ExternalTrafficPolicy = model.Local
		if n, ok := parsePort(spec.HealthCheckNodePort); ok && s.Type == model.TypeLoadBalancer {
			s.HealthCheckNodePort = n
		}
	}
	if d := spec.TrafficDistribution; d != nil {
		switch *d {
		case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
			s.PreferSameZone = true
		case corev1.ServiceTrafficDistributionPreferSameNode:
			s.PreferSameNode = true
		}
	}
}

func affinity(spec *corev1.ServiceSpec) time.Duration {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	c := spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil || *c.ClientIP.TimeoutSeconds <= 0 {
		return defaultAffinity
	}
	return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
}

// sourceRanges reads loadBalancerSourceRanges. A range of everything is the same as no range of that family.
func sourceRanges(given []string, w *warnings) []netip.Prefix {
	var out []netip.Prefix
	var all4, all6 bool
	for _, s := range given {
		if strings.TrimSpace(s) == "" {
			continue
		}
		p, masked, ok := parsePrefix(s)
		if !ok {
			w.addf("loadBalancerSourceRanges: %q is not an address range", s)
			continue
		}
		if masked {
			w.addf("loadBalancerSourceRanges: %q has address bits behind its mask, %s is meant", s, p)
		}
		all4 = all4 || p.Bits() == 0 && p.Addr().Is4()
		all6 = all6 || p.Bits() == 0 && p.Addr().Is6()
		out = append(out, p)
	}
	return slices.DeleteFunc(out, func(p netip.Prefix) bool { return all4 && p.Addr().Is4() || all6 && p.Addr().Is6() })
}
