package apiserver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
)

func TestAPodIsFoundByItsAddressesUntilItHasEnded(t *testing.T) {
	s := &Server{informers: informers.NewSharedInformerFactory(nil, 0)}
	if err := s.indexPods(); err != nil {
		t.Fatal(err)
	}
	pods := s.informers.Core().V1().Pods().Informer().GetIndexer()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	steps := []struct {
		phase corev1.PodPhase
		addrs []string
		there [3]bool // 10.244.1.5, fd01::5, 10.244.1.6
	}{
		{corev1.PodPending, nil, [3]bool{}},
		{corev1.PodRunning, []string{"10.244.1.5", "fd01::5"}, [3]bool{true, true, false}},
		{corev1.PodRunning, []string{"10.244.1.6"}, [3]bool{false, false, true}},
		{corev1.PodSucceeded, []string{"10.244.1.6"}, [3]bool{}},
	}
	for _, step := range steps {
		pod = pod.DeepCopy()
		pod.Status.Phase, pod.Status.PodIPs = step.phase, nil
		for _, a := range step.addrs {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a})
		}
		if err := pods.Update(pod); err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{s.HasPod("default", "10.244.1.5"), s.HasPod("default", "fd01::5"), s.HasPod("default", "10.244.1.6")}; got != step.there {
			t.Errorf("%s with %v: %v, want %v", step.phase, step.addrs, got, step.there)
		}
		if s.HasPod("other", "10.244.1.5") || s.HasPod("other", "10.244.1.6") {
			t.Error("a pod is found in another namespace")
		}
	}
}
