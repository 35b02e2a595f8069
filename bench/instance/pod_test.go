//go:build linux

package instance

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"minato/test/world"
)

func client(b *testing.B, w *world.World) kubernetes.Interface {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	config.Dial, config.QPS = w.Host.DialContext, -1
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// startPods creates n pods at once and returns how long each took from before its creation to Running, as a watch of
// the API sees it. It removes them and waits until they are gone.
func startPods(ctx context.Context, b *testing.B, c kubernetes.Interface, n int) []time.Duration {
	b.Helper()
	pods := c.CoreV1().Pods("default")
	events, err := pods.Watch(ctx, metav1.ListOptions{LabelSelector: "bench=start"})
	if err != nil {
		b.Fatal(err)
	}
	defer events.Stop()
	none := int64(0)
	created := map[string]time.Time{}
	for i := range n {
		name := fmt.Sprintf("start%d", i)
		created[name] = time.Now()
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": "start"}}, Spec: v1.PodSpec{
			TerminationGracePeriodSeconds: &none,
			Containers:                    []v1.Container{{Name: "c", Image: "nginx", ImagePullPolicy: v1.PullIfNotPresent}},
		}}
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	var took []time.Duration
	for event := range events.ResultChan() {
		pod, ok := event.Object.(*v1.Pod)
		if !ok {
			b.Fatalf("watching pods: %v", event.Object)
		}
		if at, waits := created[pod.Name]; waits && pod.Status.Phase == v1.PodRunning {
			took = append(took, time.Since(at))
			delete(created, pod.Name)
		}
		if len(took) == n {
			break
		}
	}
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "bench=start"}); err != nil {
		b.Fatal(err)
	}
	for range events.ResultChan() {
		left, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "bench=start"})
		if err != nil {
			b.Fatal(err)
		}
		if len(left.Items) == 0 {
			break
		}
	}
	return took
}

// BenchmarkPodStart is one pod from its creation to Running, with its image present.
func BenchmarkPodStart(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{"nginx"}})
	c := client(b, w)
	startPods(b.Context(), b, c, 3) // unpacks the image
	var all []time.Duration
	for range b.N {
		all = append(all, startPods(b.Context(), b, c, 1)...)
	}
	report(b, "start", all)
}

// BenchmarkPodStart30 is 30 pods created at once, on three nodes: until the last runs.
func BenchmarkPodStart30(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{"nginx"}})
	c := client(b, w)
	startPods(b.Context(), b, c, 3)
	var last []time.Duration
	for range b.N {
		last = append(last, slices.Max(startPods(b.Context(), b, c, 30)))
	}
	report(b, "all-30", last)
}
