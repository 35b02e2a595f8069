package apiserver_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"minato/internal/cluster/apiserver/apiservertest"
)

func TestPodGetsATokenVolumeAndTolerations(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod, err := apiservertest.Client(t, s).CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.Volumes) != 1 || pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken == nil {
		t.Errorf("the pod's volumes are %v", pod.Spec.Volumes)
	}
	if len(pod.Spec.Tolerations) != 2 {
		t.Errorf("the pod's tolerations are %v", pod.Spec.Tolerations)
	}
}

func TestEventIsTheSameInBothGroups(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	client := apiservertest.Client(t, s)
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, InvolvedObject: corev1.ObjectReference{Namespace: "default"}, Message: "hello"}
	if _, err := client.CoreV1().Events("default").Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := client.EventsV1().Events("default").Get(t.Context(), "e", metav1.GetOptions{})
	if err != nil || got.Note != "hello" {
		t.Errorf("got %v, %v", got, err)
	}
}

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

func widgetDefinition() *apiextensionsv1.CustomResourceDefinition {
	spec := apiextensionsv1.JSONSchemaProps{Type: "object", Description: "What the widget is to do.", Properties: map[string]apiextensionsv1.JSONSchemaProps{"size": {Type: "integer"}}}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: widgets.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{
				OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": spec}},
			}}},
		},
	}
}

func TestCustomResourceIsServedAndDescribed(t *testing.T) {
	dir := t.TempDir()
	s := apiservertest.Start(t, dir)
	cfg := s.Privileged()
	cfg.ContentType, cfg.AcceptContentTypes = "", "" // custom resources are JSON
	defineWidgets(t, cfg)
	widget := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": int64(3)}}}
	apiservertest.Eventually(t, func(ctx context.Context) string {
		_, err := dynamicClient(t, cfg).Resource(widgets).Namespace("default").Create(ctx, widget, metav1.CreateOptions{})
		return text(err)
	})
	apiservertest.Eventually(t, func(ctx context.Context) string {
		doc, err := apiservertest.ClientFor(t, cfg).Discovery().RESTClient().Get().AbsPath("/openapi/v3/apis/example.com/v1").DoRaw(ctx)
		if err != nil || !strings.Contains(string(doc), "What the widget is to do.") {
			return "no document for `kubectl explain widget.spec`"
		}
		return ""
	})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	cfg = apiservertest.Start(t, dir).Privileged()
	cfg.ContentType, cfg.AcceptContentTypes = "", ""
	got, err := dynamicClient(t, cfg).Resource(widgets).Namespace("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(got.Items) != 1 {
		t.Errorf("after a restart: got %v, %v", got, err)
	}
}

func defineWidgets(t *testing.T, cfg *rest.Config) {
	t.Helper()
	client, err := apiextensions.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), widgetDefinition(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func dynamicClient(t *testing.T, cfg *rest.Config) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestEveryGroupIsDescribed(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	paths, err := apiservertest.Client(t, s).Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"api/v1", "apis/apps/v1", "apis/networking.k8s.io/v1", "apis/apiextensions.k8s.io/v1"} {
		if paths[group] == nil {
			t.Errorf("no document for %s", group)
			continue
		}
		if doc, err := paths[group].Schema("application/json"); err != nil || len(doc) < 1000 {
			t.Errorf("the document for %s has %d bytes, error %v", group, len(doc), err)
		}
	}
}
