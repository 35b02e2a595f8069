package source

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"minato/internal/model"
)

// SliceObject is one EndpointSlice and the Service that it belongs to.
type SliceObject struct {
	Service  model.ServiceName
	Slice    *model.BackendSlice
	Headless bool // label service.kubernetes.io/headless: for DNS, not for the dataplane
	Warnings []string
}

func (o *SliceObject) name() ObjectName { return ObjectName{o.Service.Namespace, o.Slice.Name} }

func (o *SliceObject) equal(p *SliceObject) bool {
	return o.Service == p.Service && o.Headless == p.Headless && slices.Equal(o.Warnings, p.Warnings) &&
		o.Slice.IPv6 == p.Slice.IPv6 && slices.EqualFunc(o.Slice.Backends, p.Slice.Backends, sameBackend)
}

func sameBackend(a, b model.Backend) bool {
	return a.Addr == b.Addr && a.Protocol == b.Protocol && a.PortName == b.PortName &&
		a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating &&
		a.Hostname == b.Hostname && a.Target == b.Target && a.NodeName == b.NodeName && a.Zone == b.Zone &&
		slices.Equal(a.ForZones, b.ForZones) && slices.Equal(a.ForNodes, b.ForNodes)
}

// Slice converts an API object. It is pure; ok is false for a slice that belongs to no Service or holds names
// instead of addresses. The rules are kube-proxy's (k8s.io/kubernetes/pkg/proxy/endpointslicecache.go).
func Slice(o *discoveryv1.EndpointSlice) (out *SliceObject, ok bool) {
	svc := o.Labels[discoveryv1.LabelServiceName]
	if svc == "" || o.AddressType == discoveryv1.AddressTypeFQDN {
		return nil, false
	}
	var w warnings
	_, headless := o.Labels[corev1.IsHeadlessService]
	sl := &model.BackendSlice{Name: o.Name, IPv6: o.AddressType == discoveryv1.AddressTypeIPv6}
	if t, err := time.Parse(time.RFC3339Nano, o.Annotations[corev1.EndpointsLastChangeTriggerTime]); err == nil {
		sl.Triggered = t
	}
	ports := slicePorts(o.Ports)
	sl.Backends = make([]model.Backend, 0, len(o.Endpoints)*len(ports))
	for i := range o.Endpoints {
		b, addr, ok := endpoint(o, &o.Endpoints[i], sl.IPv6, &w)
		if !ok {
			continue
		}
		for _, p := range ports {
			b.Addr, b.Protocol, b.PortName = netip.AddrPortFrom(addr, p.number), p.protocol, p.name
			sl.Backends = append(sl.Backends, b)
		}
	}
	return &SliceObject{
		Service:  model.ServiceName{Namespace: o.Namespace, Name: svc},
		Slice:    sl,
		Headless: headless,
		Warnings: w.all(),
	}, true
}

type slicePort struct {
	name     string
	number   uint16
	protocol model.Protocol
}

// slicePorts are the ports with a name and a number. Without any, endpoints are kept with port 0 and no protocol,
// which joins no frontend: a headless Service without ports has its addresses in DNS only.
func slicePorts(all []discoveryv1.EndpointPort) []slicePort {
	out := make([]slicePort, 0, len(all))
	for _, p := range all {
		if p.Name == nil || p.Port == nil {
			continue
		}
		protocol, number := model.TCP, uint16(0)
		ok := true
		if p.Protocol != nil {
			protocol, ok = parseProtocol(*p.Protocol)
		}
		if !ok {
			continue
		}
		if number, ok = parsePort(*p.Port); ok {
			out = append(out, slicePort{*p.Name, number, protocol})
		}
	}
	if len(out) == 0 {
		return []slicePort{{}}
	}
	return out
}

// endpoint converts what the backends of all ports of an endpoint share. Only its first address counts: the API
// gives no meaning to others.
func endpoint(o *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint, ipv6 bool, w *warnings) (model.Backend, netip.Addr, bool) {
	if len(e.Addresses) == 0 {
		w.addf("EndpointSlice %s has an endpoint without an address", o.Name)
		return model.Backend{}, netip.Addr{}, false
	}
	addr, ok := parseAddr(e.Addresses[0])
	if !ok || addr.Is6() != ipv6 {
		w.addf("EndpointSlice %s has an endpoint %q, which is not an %s address", o.Name, e.Addresses[0], o.AddressType)
		return model.Backend{}, netip.Addr{}, false
	}
	b := model.Backend{
		Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
		Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
		Hostname:    value(e.Hostname),
		NodeName:    value(e.NodeName),
		Zone:        value(e.Zone),
	}
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		b.Target = t.Namespace + "/" + t.Name
	}
	if h := e.Hints; h != nil {
		for _, z := range h.ForZones {
			b.ForZones = append(b.ForZones, z.Name)
		}
		for _, n := range h.ForNodes {
			b.ForNodes = append(b.ForNodes, n.Name)
		}
	}
	return b, addr, true
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
