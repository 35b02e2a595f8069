// Package metrics is the API group metrics.k8s.io: what nodes and pods use, as `kubectl top` and the horizontal
// autoscaler ask for it.
//
// Other clusters have metrics-server for it, which asks every kubelet all the time. Here a kubelet is asked when
// somebody asks for its node or its pods, and its own last samples are the answer. A node that cannot be reached is left
// out of lists, with its pods. It keeps nothing, and cannot be watched.
package metrics

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	corelisters "k8s.io/client-go/listers/core/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// window is what a rate of CPU is the average of: the kubelets' period of samples.
const window = 15 * time.Second

// Source is where the answers come from.
type Source struct {
	Nodes corelisters.NodeLister
	Pods  corelisters.PodLister
	// Summary asks the kubelet of a node.
	Summary func(ctx context.Context, node string) (*stats.Summary, error)
}

// Scheme knows the types of the group.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	install.Install(s)
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}

// Group is the group, to be installed in the API, with the types of scheme, which is that of Scheme.
func Group(scheme *runtime.Scheme, source Source) *genericapiserver.APIGroupInfo {
	info := genericapiserver.NewDefaultAPIGroupInfo(metrics.GroupName, scheme, metav1.ParameterCodec, serializer.NewCodecFactory(scheme))
	info.VersionedResourcesStorageMap[v1beta1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"nodes": nodes{source: source}, "pods": pods{source: source},
	}
	return &info
}

// summaries asks the kubelets of nodes, all at once. Those that do not answer are not in the result.
func (s Source) summaries(ctx context.Context, nodes map[string]bool) map[string]*stats.Summary {
	var (
		mu     sync.Mutex
		asking sync.WaitGroup
		found  = make(map[string]*stats.Summary)
	)
	for node := range nodes {
		asking.Go(func() {
			if summary, err := s.Summary(ctx, node); err == nil {
				mu.Lock()
				defer mu.Unlock()
				found[node] = summary
			}
		})
	}
	asking.Wait()
	return found
}

// nodeMetrics is what a summary says of its node.
func nodeMetrics(node *v1.Node, s *stats.Summary) (metrics.NodeMetrics, bool) {
	use, at, ok := list(s.Node.CPU, s.Node.Memory)
	return metrics.NodeMetrics{ObjectMeta: meta(node.ObjectMeta), Timestamp: at, Window: metav1.Duration{Duration: window}, Usage: use}, ok
}

// podMetrics is what the summary of its node says of a pod, if it does.
func podMetrics(pod *v1.Pod, s *stats.Summary) (m metrics.PodMetrics, ok bool) {
	if s == nil {
		return m, false
	}
	m = metrics.PodMetrics{ObjectMeta: meta(pod.ObjectMeta), Window: metav1.Duration{Duration: window}}
	for i := range s.Pods {
		if s.Pods[i].PodRef.Namespace != pod.Namespace || s.Pods[i].PodRef.Name != pod.Name {
			continue
		}
		for _, c := range s.Pods[i].Containers {
			use, at, ok := list(c.CPU, c.Memory)
			if !ok {
				continue
			}
			if m.Timestamp.IsZero() || at.Before(&m.Timestamp) {
				m.Timestamp = at
			}
			m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: c.Name, Usage: use})
		}
	}
	return m, len(m.Containers) > 0
}

// list is CPU and memory as quantities, in the form of metrics-server.
func list(cpu *stats.CPUStats, memory *stats.MemoryStats) (use v1.ResourceList, at metav1.Time, ok bool) {
	if cpu == nil || cpu.UsageNanoCores == nil || memory == nil || memory.WorkingSetBytes == nil {
		return nil, at, false
	}
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewScaledQuantity(int64(*cpu.UsageNanoCores), resource.Nano),
		v1.ResourceMemory: *resource.NewQuantity(int64(*memory.WorkingSetBytes), resource.BinarySI),
	}, cpu.Time, true
}

// meta names what is measured.
func meta(of metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: of.Namespace, Name: of.Name, Labels: of.Labels, CreationTimestamp: metav1.Now()}
}
