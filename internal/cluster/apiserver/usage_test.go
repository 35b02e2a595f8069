package apiserver_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned"

	"minato/internal/cluster/apiserver/apiservertest"
)

// TestMetricsComeFromTheKubelets asks metrics.k8s.io as kubectl top does. The second node does not answer.
func TestMetricsComeFromTheKubelets(t *testing.T) {
	s, client := withKubelet(t)
	away := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node2"}}
	away.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.30.0.12"}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), away, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	metrics := metricsclient.NewForConfigOrDie(s.Privileged()).MetricsV1beta1()
	var pods *v1beta1.PodMetricsList
	apiservertest.Eventually(t, func(ctx context.Context) string { // the lister may not have the pod yet
		var err error
		if pods, err = metrics.PodMetricses("default").List(ctx, metav1.ListOptions{}); err != nil {
			return err.Error()
		}
		if len(pods.Items) == 0 {
			return "no pod has metrics"
		}
		return ""
	})
	if len(pods.Items) != 1 || pods.Items[0].Name != "p" || pods.Items[0].Containers[0].Usage.Cpu().MilliValue() != 2 || pods.Items[0].Containers[0].Usage.Memory().Value() != 4096 {
		t.Errorf("pods: %+v", pods.Items)
	}
	nodes, err := metrics.NodeMetricses().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].Name != "node1" || nodes.Items[0].Usage.Cpu().MilliValue() != 1500 {
		t.Errorf("nodes: %+v, %v", nodes.Items, err)
	}
	if _, err := metrics.NodeMetricses().Get(t.Context(), "node2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a node that does not answer: %v", err)
	}
	none, err := metrics.PodMetricses("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=other"})
	if err != nil || len(none.Items) != 0 {
		t.Errorf("by a label of nobody: %+v, %v", none.Items, err)
	}
}
