package metrics

import (
	"context"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/metrics/pkg/apis/metrics"
)

// The storages are read alone: there is nothing to write.
var (
	_ rest.Lister               = nodes{}
	_ rest.Getter               = nodes{}
	_ rest.Scoper               = nodes{}
	_ rest.SingularNameProvider = nodes{}
	_ rest.Lister               = pods{}
	_ rest.Getter               = pods{}
	_ rest.Scoper               = pods{}
	_ rest.SingularNameProvider = pods{}
)

// nodes are NodeMetrics.
type nodes struct {
	table
	source Source
}

func (nodes) New() runtime.Object     { return &metrics.NodeMetrics{} }
func (nodes) NewList() runtime.Object { return &metrics.NodeMetricsList{} }
func (nodes) Destroy()                {}
func (nodes) NamespaceScoped() bool   { return false }
func (nodes) GetSingularName() string { return "" }
func (nodes) Kind() string            { return "NodeMetrics" }

func (n nodes) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	byLabel, byField := selectors(options)
	all, err := n.source.Nodes.List(byLabel)
	if err != nil {
		return nil, err
	}
	asked := make(map[string]bool)
	for _, node := range all {
		if byField.Matches(fields.Set{"metadata.name": node.Name}) {
			asked[node.Name] = true
		}
	}
	found := n.source.summaries(ctx, asked)
	list := &metrics.NodeMetricsList{Items: []metrics.NodeMetrics{}}
	for _, node := range all {
		if s := found[node.Name]; s != nil {
			if m, ok := nodeMetrics(node, s); ok {
				list.Items = append(list.Items, m)
			}
		}
	}
	return list, nil
}

func (n nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	node, err := n.source.Nodes.Get(name)
	if err != nil {
		return nil, err
	}
	if s := n.source.summaries(ctx, map[string]bool{name: true})[name]; s != nil {
		if m, ok := nodeMetrics(node, s); ok {
			return &m, nil
		}
	}
	return nil, apierrors.NewNotFound(metrics.Resource("nodes"), name)
}

// pods are PodMetrics.
type pods struct {
	table
	source Source
}

func (pods) New() runtime.Object     { return &metrics.PodMetrics{} }
func (pods) NewList() runtime.Object { return &metrics.PodMetricsList{} }
func (pods) Destroy()                {}
func (pods) NamespaceScoped() bool   { return true }
func (pods) GetSingularName() string { return "" }
func (pods) Kind() string            { return "PodMetrics" }

func (p pods) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	byLabel, byField := selectors(options)
	all, err := p.source.Pods.Pods(genericapirequest.NamespaceValue(ctx)).List(byLabel)
	if err != nil {
		return nil, err
	}
	asked, wanted := make(map[string]bool), all[:0:0]
	for _, pod := range all {
		if pod.Spec.NodeName != "" && byField.Matches(podFields(pod)) {
			asked[pod.Spec.NodeName] = true
			wanted = append(wanted, pod)
		}
	}
	found := p.source.summaries(ctx, asked)
	list := &metrics.PodMetricsList{Items: []metrics.PodMetrics{}}
	for _, pod := range wanted {
		if m, ok := podMetrics(pod, found[pod.Spec.NodeName]); ok {
			list.Items = append(list.Items, m)
		}
	}
	return list, nil
}

func (p pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	pod, err := p.source.Pods.Pods(genericapirequest.NamespaceValue(ctx)).Get(name)
	if err != nil {
		return nil, err
	}
	found := p.source.summaries(ctx, map[string]bool{pod.Spec.NodeName: true})
	if m, ok := podMetrics(pod, found[pod.Spec.NodeName]); ok {
		return &m, nil
	}
	return nil, apierrors.NewNotFound(metrics.Resource("pods"), name)
}

// podFields are by what pods can be selected beside their labels, as in the group "".
func podFields(pod *v1.Pod) fields.Set {
	return fields.Set{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
		"status.phase": string(pod.Status.Phase),
	}
}

func selectors(options *internalversion.ListOptions) (labels.Selector, fields.Selector) {
	byLabel, byField := labels.Everything(), fields.Everything()
	if options != nil && options.LabelSelector != nil {
		byLabel = options.LabelSelector
	}
	if options != nil && options.FieldSelector != nil {
		byField = options.FieldSelector
	}
	return byLabel, byField
}

// table shows metrics as `kubectl get` asks for them.
type table struct{}

func (table) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	result := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name"}, {Name: "CPU", Type: "string"}, {Name: "Memory", Type: "string"},
		{Name: "Window", Type: "string"},
	}}
	row := func(object runtime.Object, meta metav1.ObjectMeta, window metav1.Duration, use ...v1.ResourceList) {
		var cpu, memory = use[0].Cpu().DeepCopy(), use[0].Memory().DeepCopy()
		for _, more := range use[1:] {
			cpu.Add(*more.Cpu())
			memory.Add(*more.Memory())
		}
		result.Rows = append(result.Rows, metav1.TableRow{
			Cells: []any{meta.Name, cpu.String(), memory.String(), window.Duration.String()}, Object: runtime.RawExtension{Object: object},
		})
	}
	ofNode := func(m *metrics.NodeMetrics) { row(m, m.ObjectMeta, m.Window, m.Usage) }
	ofPod := func(m *metrics.PodMetrics) {
		var use []v1.ResourceList
		for _, c := range m.Containers {
			use = append(use, c.Usage)
		}
		row(m, m.ObjectMeta, m.Window, use...)
	}
	switch o := object.(type) {
	case *metrics.NodeMetrics:
		ofNode(o)
	case *metrics.NodeMetricsList:
		for i := range o.Items {
			ofNode(&o.Items[i])
		}
	case *metrics.PodMetrics:
		ofPod(o)
	case *metrics.PodMetricsList:
		for i := range o.Items {
			ofPod(&o.Items[i])
		}
	}
	return result, nil
}
