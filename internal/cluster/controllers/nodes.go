package controllers

import (
	"context"

	"k8s.io/kubernetes/pkg/controller/nodelifecycle"
	"k8s.io/kubernetes/pkg/controller/tainteviction"
)

// Upstream's defaults for how many Nodes may lose their pods at once.
const (
	evictionRate          = 0.1
	secondaryEvictionRate = 0.01
	largeCluster          = 50
	unhealthyZone         = 0.55
)

// nodes adds what follows the heartbeats of Nodes.
func (b *builder) nodes(ctx context.Context) {
	core := b.inf.Core().V1()

	// A new Node gets the same grace as an old one: its kubelet is in this process.
	lifecycle, err := nodelifecycle.NewNodeLifecycleController(ctx, b.inf.Coordination().V1().Leases(), core.Pods(), core.Nodes(), b.inf.Apps().V1().DaemonSets(), b.client,
		b.cfg.NodeMonitorPeriod, b.cfg.NodeMonitorGrace, b.cfg.NodeMonitorGrace, evictionRate, secondaryEvictionRate, largeCluster, unhealthyZone)
	b.add("node-lifecycle", err, func(ctx context.Context) { lifecycle.Run(ctx) })

	evictions, err := tainteviction.New(ctx, b.client, core.Pods(), core.Nodes(), "taint-eviction-controller")
	b.add("taint-eviction", err, func(ctx context.Context) { evictions.Run(ctx) })
}
