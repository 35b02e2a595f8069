package controllers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/apiserver/apiservertest"
	"minato/internal/cluster/controllers"
	"minato/internal/cluster/scheduler"
)

// start runs API, controllers and scheduler until the test ends.
func start(t *testing.T) (*apiserver.Server, kubernetes.Interface) {
	t.Helper()
	s := apiservertest.Start(t, t.TempDir())
	run(t, func(ctx context.Context) error {
		return controllers.Run(ctx, controllers.Config{API: s.Privileged(), Informers: s.Informers(), RootCA: s.CA(), NodeMonitorGrace: 4 * time.Second})
	})
	run(t, func(ctx context.Context) error {
		cfg, err := s.SchedulerConfig()
		if err != nil {
			return err
		}
		return scheduler.Run(ctx, scheduler.Config{API: cfg, Informers: s.Informers()})
	})
	return s, apiservertest.Client(t, s)
}

func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func deployment(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx"}}},
			},
		},
	}
}

func TestDeploymentBecomesEndpointsOfAService(t *testing.T) {
	s, client := start(t)
	apiservertest.Node(t, s, "node1")
	apiservertest.Node(t, s, "node2")
	ctx := t.Context()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := client.CoreV1().Services("default").Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AppsV1().Deployments("default").Create(ctx, deployment(3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(ctx context.Context) string { return markReady(ctx, client, 3) })
	apiservertest.Eventually(t, func(ctx context.Context) string { return readyEndpoints(ctx, client, 3) })
	apiservertest.Eventually(t, func(ctx context.Context) string {
		d, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil || d.Status.ReadyReplicas != 3 {
			return fmt.Sprintf("the Deployment's status is %+v, error %v", d.Status, err)
		}
		return ""
	})
}

// markReady does a kubelet's part for every scheduled pod, and asks for n of them on
// more than one Node.
func markReady(ctx context.Context, client kubernetes.Interface, n int) string {
	pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		return err.Error()
	}
	nodes := map[string]bool{}
	for i, pod := range pods.Items {
		if pod.Spec.NodeName == "" {
			return pod.Name + " is not scheduled"
		}
		nodes[pod.Spec.NodeName] = true
		ip := fmt.Sprintf("10.244.1.%d", i+2)
		pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := client.CoreV1().Pods("default").UpdateStatus(ctx, &pod, metav1.UpdateOptions{}); err != nil {
			return err.Error()
		}
	}
	if len(pods.Items) != n || len(nodes) < 2 {
		return fmt.Sprintf("%d pods on %d Nodes", len(pods.Items), len(nodes))
	}
	return ""
}

func readyEndpoints(ctx context.Context, client kubernetes.Interface, n int) string {
	slices, err := client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
	if err != nil {
		return err.Error()
	}
	ready := 0
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if *e.Conditions.Ready {
				ready++
			}
		}
	}
	if ready != n {
		return fmt.Sprintf("%d ready endpoints", ready)
	}
	return ""
}

func TestDeletedNamespaceEmpties(t *testing.T) {
	_, client := start(t)
	ctx := t.Context()
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AppsV1().Deployments("gone").Create(ctx, deployment(2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(ctx context.Context) string {
		_, err := client.CoreV1().ConfigMaps("gone").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return text(err)
	})
	if err := client.CoreV1().Namespaces().Delete(ctx, "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(ctx context.Context) string {
		if _, err := client.CoreV1().Namespaces().Get(ctx, "gone", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Sprintf("the namespace is still there, error %v", err)
		}
		return ""
	})
}

func TestForegroundDeletionRemovesDependentsFirst(t *testing.T) {
	_, client := start(t)
	ctx := t.Context()
	if _, err := client.AppsV1().Deployments("default").Create(ctx, deployment(2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(ctx context.Context) string {
		sets, err := client.AppsV1().ReplicaSets("default").List(ctx, metav1.ListOptions{})
		if err != nil || len(sets.Items) != 1 {
			return "no ReplicaSet"
		}
		return ""
	})
	foreground := metav1.DeletePropagationForeground
	if err := client.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(ctx context.Context) string {
		if _, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return "the Deployment is still there"
		}
		return ""
	})
	pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil || len(pods.Items) != 0 {
		t.Errorf("%d pods outlived their Deployment, error %v", len(pods.Items), err)
	}
}

func TestSilentNodeIsNotReady(t *testing.T) {
	s, client := start(t)
	stop := apiservertest.Node(t, s, "node1")
	apiservertest.Node(t, s, "node2")
	stop()
	began := time.Now()
	apiservertest.Eventually(t, func(ctx context.Context) string {
		node, err := client.CoreV1().Nodes().Get(ctx, "node1", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown && len(node.Spec.Taints) > 0 {
				return ""
			}
		}
		return fmt.Sprintf("the Node's conditions are %v, its taints %v", node.Status.Conditions, node.Spec.Taints)
	})
	t.Logf("a silent Node showed after %v", time.Since(began))
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}
