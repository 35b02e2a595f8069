package kube

import (
	"context"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Pod is where a pod runs. Its address is invalid until it has one.
type Pod struct {
	Addr        netip.Addr
	Node        string
	HostNetwork bool
}

// GetPod asks the API for one pod; ok is false when there is none. It is for questions of people: snapshots know
// pods only as backends.
func GetPod(ctx context.Context, client kubernetes.Interface, namespace, name string) (pod Pod, ok bool, err error) {
	o, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Pod{}, false, nil
	}
	if err != nil {
		return Pod{}, false, fmt.Errorf("looking up pod %s/%s: %w", namespace, name, err)
	}
	pod = Pod{Node: o.Spec.NodeName, HostNetwork: o.Spec.HostNetwork}
	pod.Addr, _ = netip.ParseAddr(o.Status.PodIP) // empty: not started yet
	return pod, true, nil
}
