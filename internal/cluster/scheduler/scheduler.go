// Package scheduler runs upstream's kube-scheduler, with its default profile, in
// this process. It binds pods to Nodes and decides nothing else.
package scheduler

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// Config says what the scheduler works with.
type Config struct {
	// API is a client config of system:kube-scheduler.
	API *rest.Config
	// Informers are shared with the process's other components.
	Informers informers.SharedInformerFactory
}

// Run schedules until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	api := rest.CopyConfig(cfg.API)
	api.QPS = -1
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("making the scheduler's client: %w", err)
	}
	custom := rest.CopyConfig(api)
	custom.ContentType, custom.AcceptContentTypes = "", "" // the dynamic client speaks JSON
	dyn, err := dynamic.NewForConfig(custom)
	if err != nil {
		return fmt.Errorf("making the scheduler's client: %w", err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("recording the scheduler's Events: %w", err)
	}

	inf := unfinished{cfg.Informers, scheduler.NewInformerFactory(client, 0)}
	dynInf := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	s, err := scheduler.New(ctx, client, inf, dynInf, profile.NewRecorderFactory(broadcaster), scheduler.WithKubeConfig(api))
	if err != nil {
		return fmt.Errorf("making the scheduler: %w", err)
	}
	// The API's own view of roles is among the shared informers: what the scheduler
	// asks before that one is there would be forbidden.
	inf.Start(ctx.Done())
	inf.WaitForCacheSync(ctx.Done())
	inf.pods.Start(ctx.Done())
	dynInf.Start(ctx.Done())
	inf.pods.WaitForCacheSync(ctx.Done())
	dynInf.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("waiting for the scheduler's view of the cluster: %w", err)
	}
	s.Run(ctx)
	inf.pods.Shutdown()
	dynInf.Shutdown()
	return nil
}
