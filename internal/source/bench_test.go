package source_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"minato/internal/model"
	"minato/internal/source"
)

const (
	benchServices  = 5_000
	benchEndpoints = 50
)

// benchCluster is 5,000 Services of 50 endpoints on 1,000 nodes, as API objects.
func benchCluster() (services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice) {
	clusterIP, pod := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.128.0.1")
	for i := range benchServices {
		clusterIP = clusterIP.Next()
		name := fmt.Sprintf("service-%04d", i)
		services = append(services, newService(name, clusterIP.String(), ""))
		addrs := make([]string, benchEndpoints)
		for j := range addrs {
			pod = pod.Next()
			addrs[j] = pod.String()
		}
		s := newSlice(name+"-abcde", name, addrs...)
		for j := range s.Endpoints {
			e := &s.Endpoints[j]
			node, zone, ready := fmt.Sprintf("node-%04d", (i+j*17)%1000), fmt.Sprint("zone-", j%3), true
			e.NodeName, e.Zone, e.Conditions.Ready = &node, &zone, &ready
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("%s-5f6d7c8b9-%05d", name, j)}
		}
		endpoints = append(endpoints, s)
	}
	return services, endpoints
}

func build(b *source.Builder, services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice) {
	cs := make([]*source.ServiceObject, len(services))
	for i, s := range services {
		cs[i] = source.Service(s)
	}
	ce := make([]*source.SliceObject, len(endpoints))
	for i, s := range endpoints {
		ce[i], _ = source.Slice(s)
	}
	b.Update(func(batch *source.Batch) {
		batch.ReplaceServices(cs)
		batch.ReplaceSlices(ce)
		batch.ReplaceNodes(nil)
		batch.ReplaceNamespaces([]string{"default"})
	})
}

// BenchmarkFullBuild is from API objects to the first snapshot: 250,000 endpoints. MB is what the Builder keeps.
func BenchmarkFullBuild(b *testing.B) {
	services, endpoints := benchCluster()
	for b.Loop() {
		build(source.NewBuilder(), services, endpoints)
	}
	b.StopTimer()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	builder := source.NewBuilder()
	build(builder, services, endpoints)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	runtime.KeepAlive(builder)
	runtime.KeepAlive(services)
	runtime.KeepAlive(endpoints)
}

// BenchmarkOneEndpointChange is from the event to the next snapshot and its Diff, in a cluster of 250,000 endpoints.
func BenchmarkOneEndpointChange(b *testing.B) {
	services, endpoints := benchCluster()
	builder := source.NewBuilder()
	build(builder, services, endpoints)
	e := endpoints[benchServices/2]
	ready := []*bool{new(bool), new(bool)}
	*ready[0] = true
	n := 0
	for b.Loop() {
		n++
		e.Endpoints[7].Conditions.Ready = ready[n%2]
		before := builder.Current()
		o, _ := source.Slice(e)
		builder.Update(func(batch *source.Batch) { batch.SetSlice(o) })
		if c := model.Diff(before, builder.Current()); len(c.Services) != 1 {
			b.Fatalf("%d Services changed", len(c.Services))
		}
	}
}
