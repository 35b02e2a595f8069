package controllers

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/scale"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

// Upstream's defaults of the --horizontal-pod-autoscaler flags.
const (
	autoscalePeriod    = 15 * time.Second
	autoscaleDownAfter = 5 * time.Minute
	autoscaleTolerance = 0.1
	autoscaleCPUInit   = 5 * time.Minute
	autoscaleReadiness = 30 * time.Second
)

// autoscaler adds the controller of HorizontalPodAutoscalers. It asks metrics.k8s.io what pods use; metrics of other
// kinds it finds where a user has installed an API for them.
func (b *builder) autoscaler(ctx context.Context) {
	scales, err := scale.NewForConfig(b.cfg.API, b.mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(b.client.Discovery()))
	resources, resourcesErr := resourceclient.NewForConfig(b.cfg.API)
	external, externalErr := external_metrics.NewForConfig(b.cfg.API)
	if err := errors.Join(err, resourcesErr, externalErr); err != nil {
		b.add("horizontalpodautoscaler", err, nil)
		return
	}
	versions := custom_metrics.NewAvailableAPIsGetter(b.client.Discovery())
	custom := custom_metrics.NewForConfig(b.cfg.API, b.mapper, versions)
	autoscaler := podautoscaler.NewHorizontalController(ctx, b.client.CoreV1(), scales, b.client.AutoscalingV2(), b.mapper,
		metrics.NewRESTMetricsClient(resources, custom, external), b.inf.Autoscaling().V2().HorizontalPodAutoscalers(), b.inf.Core().V1().Pods(),
		autoscalePeriod, autoscaleDownAfter, autoscaleTolerance, autoscaleCPUInit, autoscaleReadiness)
	b.add("horizontalpodautoscaler", nil, func(ctx context.Context) { autoscaler.Run(ctx, workers) })
	b.add("versions of custom metrics", nil, func(ctx context.Context) {
		custom_metrics.PeriodicallyInvalidate(versions, time.Minute, ctx.Done())
	})
}
