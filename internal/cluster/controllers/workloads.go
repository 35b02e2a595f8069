package controllers

import (
	"context"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/replication"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"
)

// workers is how many objects a controller works on at once. Upstream's 5 is for
// clusters whose API is far away.
const workers = 2

// workloads adds what makes pods.
func (b *builder) workloads(ctx context.Context) {
	apps, batch, pods := b.inf.Apps().V1(), b.inf.Batch().V1(), b.inf.Core().V1().Pods()

	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), pods, b.client)
	b.add("deployment", err, func(ctx context.Context) { deployments.Run(ctx, workers) })

	replicaSets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), pods, b.client, replicaset.BurstReplicas)
	b.add("replicaset", nil, func(ctx context.Context) { replicaSets.Run(ctx, workers) })

	replications := replication.NewReplicationManager(ctx, pods, b.inf.Core().V1().ReplicationControllers(), b.client, replication.BurstReplicas)
	b.add("replicationcontroller", nil, func(ctx context.Context) { replications.Run(ctx, workers) })

	statefulSets := statefulset.NewStatefulSetController(ctx, pods, apps.StatefulSets(), b.inf.Core().V1().PersistentVolumeClaims(), apps.ControllerRevisions(), b.client)
	b.add("statefulset", nil, func(ctx context.Context) { statefulSets.Run(ctx, workers) })

	daemons, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), pods, b.inf.Core().V1().Nodes(), b.client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	b.add("daemonset", err, func(ctx context.Context) { daemons.Run(ctx, workers) })

	jobs, err := job.NewController(ctx, b.client, pods, batch.Jobs(), nil, nil)
	b.add("job", err, func(ctx context.Context) { jobs.Run(ctx, workers) })

	cronJobs, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), b.client)
	b.add("cronjob", err, func(ctx context.Context) { cronJobs.Run(ctx, workers) })

	finished := ttlafterfinished.New(ctx, batch.Jobs(), b.client)
	b.add("ttl-after-finished", nil, func(ctx context.Context) { finished.Run(ctx, workers) })

	b.budgets(ctx)
	b.autoscaler(ctx)
}

// budgets adds the controller of PodDisruptionBudgets.
func (b *builder) budgets(ctx context.Context) {
	scales, err := scale.NewForConfig(b.cfg.API, b.mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(b.client.Discovery()))
	if err != nil {
		b.add("disruption", err, nil)
		return
	}
	apps, core := b.inf.Apps().V1(), b.inf.Core().V1()
	budgets := disruption.NewDisruptionController(ctx, core.Pods(), b.inf.Policy().V1().PodDisruptionBudgets(), core.ReplicationControllers(),
		apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(), b.client, b.mapper, scales, b.client.Discovery())
	b.add("disruption", nil, budgets.Run)
}
