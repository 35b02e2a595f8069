package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// Annotations of Services are MetalLB's, under its present prefix and under the one it had before.
var annotationPrefixes = []string{"metallb.io/", "metallb.universe.tf/"}

func annotation(o *corev1.Service, name string) string {
	for _, prefix := range annotationPrefixes {
		if v, ok := o.Annotations[prefix+name]; ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// addressRequest reads what a Service asks of whoever gives out load balancer addresses.
func addressRequest(o *corev1.Service, w *warnings) model.AddressRequest {
	if o.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return model.AddressRequest{}
	}
	r := model.AddressRequest{Pool: annotation(o, "address-pool"), Sharing: annotation(o, "allow-shared-ip")}
	if o.Spec.LoadBalancerClass != nil {
		r.Class = *o.Spec.LoadBalancerClass
	}
	r.Addrs, r.Problem = askedAddrs(o.Spec.LoadBalancerIP, annotation(o, "loadBalancerIPs"))
	if r.Problem != "" {
		w.addf("%s", r.Problem)
	}
	return r
}

// askedAddrs reads the two places where addresses can be asked for.
func askedAddrs(field, list string) (addrs []netip.Addr, problem string) {
	if list == "" && field == "" {
		return nil, ""
	}
	what, given := "loadBalancerIP", []string{field}
	if list != "" {
		what, given = "annotation loadBalancerIPs", strings.Split(list, ",")
	}
	for _, s := range given {
		a, ok := parseAddr(s)
		switch {
		case !ok:
			return nil, fmt.Sprintf("%s %q is not an address", what, strings.TrimSpace(s))
		case slices.ContainsFunc(addrs, func(o netip.Addr) bool { return o.Is6() == a.Is6() }):
			return nil, fmt.Sprintf("%s %q asks for more than one address of a family", what, list)
		}
		addrs = append(addrs, a)
	}
	if a, ok := parseAddr(field); field != "" && (!ok || !slices.Contains(addrs, a)) {
		return nil, fmt.Sprintf("loadBalancerIP %q and annotation loadBalancerIPs %q ask for different addresses", field, list)
	}
	return addrs, ""
}
