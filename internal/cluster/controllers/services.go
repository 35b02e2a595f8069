package controllers

import (
	"context"

	"k8s.io/kubernetes/pkg/controller/endpoint"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/endpointslicemirroring"
	"k8s.io/kubernetes/pkg/controller/servicecidrs"
)

// Upstream's defaults of --max-endpoints-per-slice and --mirroring-max-endpoints-per-subset.
const (
	endpointsPerSlice  = 100
	endpointsPerSubset = 1000
)

// services adds what says where a Service's traffic goes. None of them waits to
// gather changes: a pod that became ready is an endpoint at once.
func (b *builder) services(ctx context.Context) {
	core, slices := b.inf.Core().V1(), b.inf.Discovery().V1().EndpointSlices()

	endpoints := endpoint.NewEndpointController(ctx, core.Pods(), core.Services(), core.Endpoints(), b.client, 0)
	b.add("endpoint", nil, func(ctx context.Context) { endpoints.Run(ctx, workers) })

	endpointSlices := endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(), slices, endpointsPerSlice, b.client, 0)
	b.add("endpointslice", nil, func(ctx context.Context) { endpointSlices.Run(ctx, workers) })

	mirroring := endpointslicemirroring.NewController(ctx, core.Endpoints(), slices, core.Services(), endpointsPerSubset, b.client, 0)
	b.add("endpointslicemirroring", nil, func(ctx context.Context) { mirroring.Run(ctx, workers) })

	cidrs := servicecidrs.NewController(ctx, b.inf.Networking().V1().ServiceCIDRs(), b.inf.Networking().V1().IPAddresses(), b.client)
	b.add("servicecidr", nil, func(ctx context.Context) { cidrs.Run(ctx, 1) })
}
