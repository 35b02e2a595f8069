// Package agent is one node of a cluster that somebody else runs: it watches the cluster's API and keeps this machine's
// nftables at what Services say, as kube-proxy does, and answers the health checks of load balancers.
//
// It is the wiring of minato-agent, in plain constructors, and links neither Kubernetes' own code nor etcd. It does not
// answer DNS, give addresses to load balancers, announce them or serve Ingress: what the cluster has for these goes on.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/apply"
	"minato/internal/dataplane/localhost"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/health/server"
	"minato/internal/heap"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/status"
)

// Config is what an agent works with.
type Config struct {
	Kubeconfig   string // empty: that of the pod the agent runs in
	NodeName     string
	ServiceCIDRs []netip.Prefix // addresses of it that are no ClusterIP are dropped, ports that are none refused
	MetricsAddr  netip.Addr     // at which /metrics answers
	Localhost    bool           // NodePorts over TCP and UDP answer at 127.0.0.1 and ::1 too
	Clients      int            // that session affinity remembers in each family; 0: kernel.DefaultAffinityClients
	Log          *slog.Logger
}

// Run works until ctx ends. The rules stay then, and go on working; Cleanup takes them away. What cannot work at all
// is an error at once; an API server that is not there is waited for.
func Run(ctx context.Context, cfg Config) error {
	client, err := kube.ClientFrom(cfg.Kubeconfig)
	if err != nil {
		return err
	}
	dataplane, err := kernel.Open(kernel.Config{Netns: netns.NS{}, ServiceCIDRs: cfg.ServiceCIDRs, AffinityClients: cfg.Clients, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer dataplane.Close()
	builder, board, progress := source.NewBuilder(), new(status.Board), new(apply.Progress)
	health := server.New(server.Config{Progress: progress, Log: cfg.Log, MetricsAddrs: []netip.Addr{cfg.MetricsAddr},
		Figures: []prometheus.Collector{board.Collector(cfg.NodeName), dataplane}})
	publishers := []apply.Publisher{health}
	loopback := localhost.New(localhost.Config{Log: cfg.Log})
	if cfg.Localhost {
		publishers = append(publishers, loopback)
	}
	loop := apply.New(apply.Config{Source: builder, Node: model.Node{Name: cfg.NodeName}, Board: board, Log: cfg.Log, Progress: progress,
		Programmers: []apply.Programmer{dataplane}, Publishers: publishers})

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	start := func(name string, f func(context.Context) error) {
		work.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	usual := heap.GrowFreely()
	start("heap", func(ctx context.Context) error {
		defer usual()
		return board.Wait(ctx, func(all []status.Entry) bool { return len(all) > 0 }) // the first revision is in the kernel
	})
	start("source", func(ctx context.Context) error { return kube.RunServices(ctx, client, builder) })
	start("health", health.Run)
	start("NodePorts at the loopback", loopback.Run)
	start("data path", loop.Run)
	start("flows", dataplane.Run)
	cfg.Log.Info("minato-agent runs", "node", cfg.NodeName)
	<-ctx.Done()
	work.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// Cleanup takes away everything that agents have left in nftables.
func Cleanup(ctx context.Context) error {
	dataplane, err := kernel.Open(kernel.Config{})
	if err != nil {
		return err
	}
	defer dataplane.Close()
	return dataplane.Remove(ctx)
}
