//go:build linux

package kubelet

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

var scheme = clientscheme.Scheme

func eventSink(client kubernetes.Interface) record.EventSink {
	return &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}
}

// event tells of a container of a pod.
func (k *Kubelet) event(pod *v1.Pod, c *v1.Container, eventType, reason, message string) {
	ref := podRef(pod)
	ref.FieldPath = fieldPath(pod, c.Name)
	k.recorder.Event(ref, eventType, reason, message)
}

// podEvent tells of a pod as a whole.
func (k *Kubelet) podEvent(pod *v1.Pod, eventType, reason, message string) {
	k.recorder.Event(podRef(pod), eventType, reason, message)
}

func podRef(pod *v1.Pod) *v1.ObjectReference {
	return &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
}

func fieldPath(pod *v1.Pod, container string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container {
			return fmt.Sprintf("spec.initContainers{%s}", container)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == container {
			return fmt.Sprintf("spec.ephemeralContainers{%s}", container)
		}
	}
	return fmt.Sprintf("spec.containers{%s}", container)
}
