package source

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"minato/internal/model"
)

// beingScaledDown is the taint which the cluster autoscaler gives a node before it deletes it.
const beingScaledDown = "ToBeDeletedByClusterAutoscaler"

// Node converts an API object. It is pure. The addresses are the internal ones, or, where there are none, the
// external ones. Netns is not known to the API and stays empty.
func Node(o *corev1.Node) *model.Node {
	n := &model.Node{Name: o.Name, Zone: o.Labels[corev1.LabelTopologyZone]}
	_, n.NoLoadBalancers = o.Labels[corev1.LabelNodeExcludeBalancers]
	n.Leaving = o.DeletionTimestamp != nil ||
		slices.ContainsFunc(o.Spec.Taints, func(t corev1.Taint) bool { return t.Key == beingScaledDown })
	for _, t := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range o.Status.Addresses {
			if addr, ok := parseAddr(a.Address); ok && a.Type == t && !slices.Contains(n.Addrs, addr) {
				n.Addrs = append(n.Addrs, addr)
			}
		}
		if len(n.Addrs) > 0 {
			break
		}
	}
	cidrs := o.Spec.PodCIDRs
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs = []string{o.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		if p, _, ok := parsePrefix(c); ok {
			n.PodCIDRs = append(n.PodCIDRs, p)
		}
	}
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeReady {
			n.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return n
}

func sameNode(a, b *model.Node) bool {
	return a.Name == b.Name && a.Netns == b.Netns && a.Zone == b.Zone && a.Ready == b.Ready && a.NoLoadBalancers == b.NoLoadBalancers &&
		a.Leaving == b.Leaving && slices.Equal(a.NodePorts, b.NodePorts) &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}
