// Package run connects everything: it is the one place which knows all packages, in plain constructors, read from
// top to bottom.
//
// It holds no rules. What a component does, its own package says; here is only who gets what, who waits for whom, and
// in which order things start and stop.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/cni"
	"minato/internal/cluster/containerd"
	"minato/internal/cluster/controllers"
	"minato/internal/cluster/images"
	"minato/internal/cluster/nodes"
	"minato/internal/cluster/scheduler"
	"minato/internal/dns/corefile"
	"minato/internal/handover"
	"minato/internal/heap"
	"minato/internal/instance"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/status"
	"minato/internal/statuswriter"
	"minato/internal/web"
)

// Owner is the user whom the control socket and the kubeconfig belong to.
type Owner struct{ UID, GID int }

// Options are what does not outlive one start.
type Options struct {
	Progress io.Writer // told what is done and what is waited for
	Log      *slog.Logger
	Owner    Owner
	Replace  bool // take over from the process that has the instance, if any
}

// Running is an instance that is up.
type Running struct {
	stop func()
	done chan struct{}
	err  error
}

// Wait returns when the instance has ended, with the reason when it was not asked to. Pods run on.
func (r *Running) Wait() error {
	<-r.done
	return r.err
}

// instanceRun is one run of an instance, from start to end.
type instanceRun struct {
	inst instance.Instance
	cfg  instance.Config
	opt  Options
	p    *progress

	ctx    context.Context
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // everything that works until ctx ends
	closes []func()       // afterwards, last first

	sockets    *handover.Set
	servingCtx context.Context // of what serves clients until a successor does
	endServing context.CancelFunc
	serving    sync.WaitGroup

	network    *nodes.Network
	store      *images.Store
	containerd *containerd.Daemon
	api        *apiserver.Server
	pods       atomic.Pointer[apiserver.Server] // api, for who asks about pods before there is one
	builder    *source.Builder
	board      *status.Board
	agents     []*agent             // of all nodes, from the time when there is a network
	changing   sync.Mutex           // held while a node changes its condition
	before     map[string]condition // of the nodes, when this run began
	notices    *statuswriter.Notices
	ingresses  *statuswriter.IngressWriter
	proxies    proxies
}

// Up starts the instance and returns when its nodes are ready. It ends when ctx does.
func Up(ctx context.Context, inst instance.Instance, cfg instance.Config, opt Options) (*Running, error) {
	defer heap.GrowFreely()()
	if err := inst.MakeDirs(); err != nil {
		return nil, err
	}
	u := &instanceRun{inst: inst, cfg: cfg, opt: opt, p: newProgress(opt.Progress), builder: source.NewBuilder(), board: new(status.Board)}
	u.p.say("minato: instance %s, %d nodes, state in %s", inst.Name, len(cfg.Nodes), inst.StateDir)
	unlock, err := u.acquire(ctx)
	if err != nil {
		return nil, err
	}
	u.onClose(unlock)
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	u.servingCtx, u.endServing = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(u.ctx, func() {
		if !u.sockets.Handed() {
			u.endServing()
		}
	})
	if err := u.start(); err != nil {
		if cause := context.Cause(u.ctx); u.ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
			err = cause // the component that ended says more than those that waited for it
		}
		u.cancel(err)
		u.finish()
		u.sockets.Close()
		return nil, err
	}
	u.p.say("ready in %s", u.p.took())
	r := &Running{stop: func() { u.cancel(nil) }, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if u.awaitSuccessor() {
			return
		}
		<-u.ctx.Done()
		if cause := context.Cause(u.ctx); ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
			r.err = cause
		}
		u.finish()
	}()
	return r, nil
}

// finish waits for all work, then closes what was opened, last first. What serves clients goes on where a successor
// takes over.
func (u *instanceRun) finish() {
	u.work.Wait()
	if !u.sockets.Handed() {
		u.serving.Wait()
	}
	for i := len(u.closes) - 1; i >= 0; i-- {
		u.closes[i]()
	}
}

func (u *instanceRun) onClose(f func()) { u.closes = append(u.closes, f) }

// goRun runs f until the instance ends. A component that ends before is the instance's end.
func (u *instanceRun) goRun(name string, f func(context.Context) error) {
	u.work.Go(func() { u.component(u.ctx, name, f) })
}

func (u *instanceRun) component(ctx context.Context, name string, f func(context.Context) error) {
	err := f(ctx)
	if ctx.Err() == nil {
		if err == nil {
			err = errors.New("ended by itself")
		}
		u.cancel(fmt.Errorf("%s: %w", name, err))
	} else if err != nil && !errors.Is(err, context.Canceled) {
		u.opt.Log.Warn("stopping", "component", name, "err", err)
	}
}

// start brings up the parts in the order of their needs: the network first, then the API and containerd beside each
// other, then everything that watches the API.
func (u *instanceRun) start() error {
	if err := u.loadConditions(); err != nil {
		return err
	}
	if err := u.p.step("network", u.startNetwork); err != nil {
		return err
	}
	if err := u.inst.Save(u.cfg); err != nil { // not before the ranges are known to be free
		return err
	}
	runtime := make(chan error, 1)
	go func() { runtime <- u.p.step("containerd", u.startContainerd) }()
	err := u.p.step("Kubernetes API", u.startAPI)
	if err := errors.Join(err, <-runtime); err != nil {
		return err
	}
	if err := u.startCluster(); err != nil {
		return err
	}
	if err := u.p.step("nodes ready", u.waitForNodes); err != nil {
		return err
	}
	if err := u.writeKubeconfig(); err != nil {
		return err
	}
	return u.servesInstead()
}

func (u *instanceRun) startNetwork() error {
	c := NetworkConfig(u.inst, u.cfg, u.opt.Log)
	for i := range c.Nodes {
		c.Nodes[i].Unlinked = !u.before[c.Nodes[i].Name].linked()
	}
	net, err := nodes.Up(u.ctx, c)
	if err != nil {
		return err
	}
	u.network = net
	u.onClose(net.Close)
	for _, n := range net.Notices {
		u.p.say("  %s; run: %s", n.Problem, n.Command)
	}
	if err := u.makeAgents(); err != nil {
		return err
	}
	for _, a := range u.agents {
		if err := u.startNames(a); err != nil {
			return fmt.Errorf("node %s: %w", a.node.Name, err)
		}
	}
	return nil
}

// NetworkConfig is the network of an instance.
func NetworkConfig(inst instance.Instance, cfg instance.Config, log *slog.Logger) nodes.Config {
	c := nodes.Config{
		Name: inst.Name, StateDir: inst.StateDir, HostPorts: []uint16{cfg.APIPort}, Log: log,
	}
	for _, f := range cfg.Families {
		c.Families = append(c.Families, nodes.Family{NodeCIDR: f.NodeCIDR, PodCIDR: f.PodCIDR, ServiceCIDR: f.ServiceCIDR, HostAddr: f.HostAddr()})
	}
	for i, n := range cfg.Nodes {
		c.Nodes = append(c.Nodes, nodes.Node{Name: n.Name, Addrs: n.Addrs, PodCIDRs: cfg.NodePodCIDRs(i), Host: cfg.Host})
	}
	return c
}

// startContainerd starts what runs pods: loaded images behind a mirror, the CNI plugin's socket, and containerd.
func (u *instanceRun) startContainerd() (err error) {
	if u.store, err = images.Open(u.inst.ImagesDir(), u.opt.Log); err != nil {
		return err
	}
	if err := u.store.EnsurePause(); err != nil {
		return err
	}
	mirror, err := u.sockets.Listener("image mirror", func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		return fmt.Errorf("listen for the image mirror: %w", err)
	}
	u.goRun("image mirror", func(ctx context.Context) error { return serveHTTP(ctx, mirror, u.store.Mirror()) })
	socket, err := u.sockets.Listener("cni", func() (net.Listener, error) { return listenRoot(u.inst.CNISocket()) })
	if err != nil {
		return err
	}
	attach := cni.Handler(attacher{u.network}, u.opt.Log)
	u.goRun("pod attachment", func(ctx context.Context) error { return serveHTTP(ctx, socket, attach) })
	c := u.containerdConfig()
	c.Mirror = "http://" + mirror.Addr().String()
	if err := cni.Install(c.CNIBinDir(), c.CNIConfDir(), "minato-"+u.inst.Name, u.inst.CNISocket()); err != nil {
		return err
	}
	if u.containerd, err = containerd.Start(u.ctx, c); err != nil {
		return err
	}
	u.onClose(u.containerd.Close)
	return nil
}

func (u *instanceRun) containerdConfig() containerd.Config {
	return containerd.Config{Dir: u.inst.ContainerdDir(), RunDir: u.inst.ContainerdRunDir(), PauseImage: images.PauseImage,
		CgroupRoot: u.inst.CgroupRoot(), Log: u.opt.Log}
}

// startCluster starts everything that watches the API.
func (u *instanceRun) startCluster() error {
	agentConfig, err := u.api.AgentConfig()
	if err != nil {
		return err
	}
	client, err := kube.Client(agentConfig)
	if err != nil {
		return err
	}
	u.builder.Update(func(b *source.Batch) {
		b.SetPolicy(source.Policy{NodePorts: u.cfg.NodePorts, RefuseExternalIPs: u.cfg.NoExternalIPs})
		b.SetLoadBalancerDefaults(loadBalancerDefaults(u.cfg))
	})
	u.goRun("revisions", u.followRevisions)
	u.goRun("source", func(ctx context.Context) error { return kube.Run(ctx, client, u.builder) })
	addresses := statuswriter.New(statuswriter.Config{Client: client, Source: u.builder, Board: u.board, Log: u.opt.Log})
	u.goRun("load balancer addresses", addresses.Run)
	u.notices = statuswriter.NewNotices(statuswriter.NoticesConfig{Client: client, Source: u.builder, Log: u.opt.Log})
	u.goRun("notices", u.notices.Run)
	dnsConfig := statuswriter.DNSConfigWriter{Client: client, Source: u.builder, Log: u.opt.Log, Check: func(c *model.DNSConfig) ([]string, error) {
		return corefile.Problems(c, u.dnsHost())
	}}
	u.goRun("events of the DNS configuration", dnsConfig.Run)
	if err := u.startIngressWriter(); err != nil {
		return err
	}
	u.startWitness()
	for _, a := range u.agents {
		if err := u.startAgent(a); err != nil {
			return fmt.Errorf("node %s: %w", a.node.Name, err)
		}
	}
	if err := u.startGarbage(); err != nil {
		return err
	}
	u.goRun("controllers", func(ctx context.Context) error {
		return controllers.Run(ctx, controllers.Config{API: u.api.Privileged(), Informers: u.api.Informers(), RootCA: u.api.CA()})
	})
	schedulerConfig, err := u.api.SchedulerConfig()
	if err != nil {
		return err
	}
	u.goRun("scheduler", func(ctx context.Context) error {
		return scheduler.Run(ctx, scheduler.Config{API: schedulerConfig, Informers: u.api.Informers()})
	})
	control := u.control(func(ctx context.Context) *kube.Pods { return &kube.Pods{Ctx: ctx, Client: client} })
	socket, err := u.sockets.Listener("control", func() (net.Listener, error) {
		return web.Listen(u.inst.ControlSocket(), u.opt.Owner.UID)
	})
	if err != nil {
		return err
	}
	u.goRun("control socket", func(ctx context.Context) error { return web.Serve(ctx, socket, control) })
	return nil
}

// leaseInterval is how often nodes show that they live; the controllers give them 8 s.
const leaseInterval = 2 * time.Second
