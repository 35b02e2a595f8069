// Package controllers runs upstream's kube-controller-manager loops in this process:
// those that workloads, Services, namespaces and nodes need, over one set of
// informers and without leader election. It sets no pod ranges of Nodes, has no
// cloud.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Config says what the controllers work with.
type Config struct {
	// API is a client config that may do everything.
	API *rest.Config
	// Informers are shared with the process's other components.
	Informers informers.SharedInformerFactory
	// RootCA is published as the ConfigMap kube-root-ca.crt in every namespace.
	RootCA []byte
	// NodeMonitorPeriod is how often Nodes' heartbeats are looked at, 1 s if zero.
	NodeMonitorPeriod time.Duration
	// NodeMonitorGrace is how old a heartbeat may be before its Node is not ready,
	// 8 s if zero. Nodes must renew their Lease several times in it.
	NodeMonitorGrace time.Duration
}

// loop is one controller; run blocks until ctx ends.
type loop struct {
	name string
	run  func(ctx context.Context)
}

// builder makes the controllers, and remembers the first error of one.
type builder struct {
	cfg      Config
	client   kubernetes.Interface
	metadata metadata.Interface
	mapper   *restmapper.DeferredDiscoveryRESTMapper
	inf      late
	started  chan struct{} // closed when the informers run

	loops []loop
	errs  []error
}

// Run starts all controllers and blocks until ctx ends and they have stopped.
func Run(ctx context.Context, cfg Config) error {
	if cfg.NodeMonitorPeriod == 0 {
		cfg.NodeMonitorPeriod = time.Second
	}
	if cfg.NodeMonitorGrace == 0 {
		cfg.NodeMonitorGrace = 8 * time.Second
	}
	b, err := newBuilder(cfg)
	if err != nil {
		return err
	}
	b.workloads(ctx)
	b.services(ctx)
	b.housekeeping(ctx)
	b.nodes(ctx)
	if err := errors.Join(b.errs...); err != nil {
		return fmt.Errorf("making the controllers: %w", err)
	}
	if err := b.inf.gate.open(); err != nil {
		return fmt.Errorf("adding the controllers' handlers: %w", err)
	}
	var running sync.WaitGroup
	for _, l := range b.loops {
		running.Go(func() { l.run(ctx) })
	}
	cfg.Informers.Start(ctx.Done())
	close(b.started)
	running.Wait()
	return nil
}

func newBuilder(cfg Config) (*builder, error) {
	api := rest.CopyConfig(cfg.API)
	api.QPS, api.UserAgent = -1, "kube-controller-manager"
	b := &builder{cfg: cfg, inf: late{cfg.Informers, &gate{}}, started: make(chan struct{})}
	var err error
	if b.client, err = kubernetes.NewForConfig(api); err != nil {
		return nil, fmt.Errorf("making the controllers' client: %w", err)
	}
	if b.metadata, err = metadata.NewForConfig(api); err != nil {
		return nil, fmt.Errorf("making the controllers' client: %w", err)
	}
	b.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(b.client.Discovery()))
	return b, nil
}

// add takes a controller as its constructor returned it.
func (b *builder) add(name string, err error, run func(ctx context.Context)) {
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s: %w", name, err))
		return
	}
	b.loops = append(b.loops, loop{name, run})
}
