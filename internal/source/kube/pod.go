package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"minato/internal/model"
)

// Pods asks the API about pods, for questions of people: snapshots know pods only as backends. It is for one question
// and one goroutine. A request that fails finds nothing, and Err tells.
type Pods struct {
	Ctx    context.Context
	Client kubernetes.Interface

	err error
}

// Err is what went wrong with requests so far.
func (p *Pods) Err() error { return p.err }

// Pod finds a pod by name.
func (p *Pods) Pod(namespace, name string) (model.Pod, bool) {
	o, err := p.Client.CoreV1().Pods(namespace).Get(p.Ctx, name, metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsNotFound(err) {
			p.err = errors.Join(p.err, fmt.Errorf("looking up pod %s/%s: %w", namespace, name, err))
		}
		return model.Pod{}, false
	}
	return Pod(o), true
}

// At finds the pod that has an address to itself.
func (p *Pods) At(a netip.Addr) (model.Pod, bool) {
	for _, pod := range p.list("", metav1.ListOptions{FieldSelector: "status.podIP=" + a.String()}) {
		if pod.Addr == a && !pod.HostNetwork && pod.Phase != string(corev1.PodSucceeded) && pod.Phase != string(corev1.PodFailed) {
			return pod, true
		}
	}
	return model.Pod{}, false
}

// In lists the pods of a namespace.
func (p *Pods) In(namespace string) []model.Pod { return p.list(namespace, metav1.ListOptions{}) }

// Match lists the pods of all namespaces whose labels a selector fits.
func (p *Pods) Match(selector string) []model.Pod {
	return p.list("", metav1.ListOptions{LabelSelector: selector})
}

func (p *Pods) list(namespace string, o metav1.ListOptions) (all []model.Pod) {
	list, err := p.Client.CoreV1().Pods(namespace).List(p.Ctx, o)
	if err != nil {
		p.err = errors.Join(p.err, fmt.Errorf("listing pods: %w", err))
		return nil
	}
	for i := range list.Items {
		all = append(all, Pod(&list.Items[i]))
	}
	return all
}

// Pod takes from a pod what connections to and from it need.
func Pod(o *corev1.Pod) model.Pod {
	p := model.Pod{
		Namespace: o.Namespace, Name: o.Name, Node: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork,
		Phase: string(o.Status.Phase), Labels: o.Labels, DNSPolicy: string(cmp.Or(o.Spec.DNSPolicy, corev1.DNSClusterFirst)),
	}
	p.Addr, _ = netip.ParseAddr(o.Status.PodIP) // empty: not started yet
	for _, c := range o.Spec.Containers {
		for _, port := range c.Ports {
			p.Ports = append(p.Ports, model.Port{Name: port.Name, Protocol: protocol(port.Protocol), Port: uint16(port.ContainerPort)})
		}
	}
	if c := o.Spec.DNSConfig; c != nil {
		p.Nameservers, p.Searches = c.Nameservers, c.Searches
		for _, option := range c.Options {
			if option.Name == "ndots" && option.Value != nil {
				p.Ndots, _ = strconv.Atoi(*option.Value) // the API has checked nothing: resolvers take 0 for what is no number
			}
		}
	}
	return p
}

func protocol(p corev1.Protocol) model.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return model.UDP
	case corev1.ProtocolSCTP:
		return model.SCTP
	}
	return model.TCP
}
