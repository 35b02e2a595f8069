package run

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/announce/arp"
	"minato/internal/announce/heartbeat"
	"minato/internal/announce/lan"
	"minato/internal/announce/ndp"
	"minato/internal/apply"
	"minato/internal/cluster/kubelet"
	"minato/internal/dataplane/localhost"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/dns"
	"minato/internal/dns/corefile"
	"minato/internal/dns/lastgood"
	dnsserver "minato/internal/dns/server"
	healthserver "minato/internal/health/server"
	"minato/internal/ingress/proxy"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/source"
	"minato/internal/source/kube"
)

// except are the Services that the dataplane leaves alone, because the node itself answers at their addresses.
func except() map[model.ServiceName]bool { return map[model.ServiceName]bool{dnsService: true} }

// agent is the data path of one node, and its kubelet.
type agent struct {
	node      model.Node
	netns     netns.NS
	dataplane *kernel.Applier
	table     *dns.Table
	dns       *dnsserver.Server
	kubelet   *kubelet.Kubelet
	ingress   *proxy.Server
	loopback  *localhost.Server
	corefile  *corefile.Applier
	lastGood  *lastgood.Keeper
	view      *source.View
	speakers  []*lan.Speaker
	heart     *heartbeat.Heart // nil where there is nobody to hear
	uplink    *uplink

	mu     sync.Mutex // guards what follows
	is     condition
	lost   bool // heartbeats say that the host is not there
	waking bool // they have said nothing since the agent was paused
}

// makeAgents makes the agents of all nodes, and starts nothing of them.
func (u *instanceRun) makeAgents() error {
	for i, n := range u.cfg.Nodes {
		ns, err := u.network.Netns(n.Name)
		if err != nil {
			return err
		}
		u.agents = append(u.agents, &agent{
			node:  model.Node{Name: n.Name, Addrs: n.Addrs, PodCIDRs: u.cfg.NodePodCIDRs(i), Netns: ns.Path()},
			netns: ns, view: source.NewView(u.builder), is: u.before[n.Name],
			uplink: newUplink(func(ctx context.Context) (net.Conn, error) { return u.dialAPI(ctx, ns) }),
		})
	}
	return nil
}

// startAgent starts everything of a node.
func (u *instanceRun) startAgent(a *agent) error {
	a.mu.Lock()
	a.settle()
	a.mu.Unlock()
	u.goRun("view of "+a.node.Name, a.view.Run)
	if err := u.startDataPath(a); err != nil {
		return err
	}
	u.startHeart(a)
	return u.startKubelet(a)
}

// startDataPath wires source -> apply -> nftables, DNS and the others for one node.
func (u *instanceRun) startDataPath(a *agent) (err error) {
	log := u.opt.Log.With("node", a.node.Name)
	a.dataplane, err = kernel.Open(kernel.Config{Netns: a.netns, ServiceCIDRs: u.cfg.ServiceCIDRs(), IPv4Only: !u.cfg.HasIPv6(), Log: log})
	if err != nil {
		return err
	}
	u.goRun("flows of "+a.node.Name, a.dataplane.Run)
	a.dataplane.Except(dnsService)                // answered on the node itself
	u.onClose(func() { _ = a.dataplane.Close() }) // the table stays: connections go on
	publishers := []apply.Publisher{a.table}
	a.speakers = u.speakers(a, log)
	for _, s := range a.speakers {
		s.Mute(a.is == paused)
		u.goServe(s.Name()+" announcements of "+a.node.Name, s.Run)
		publishers = append(publishers, s)
	}
	if err := u.startIngress(a, log); err != nil {
		return err
	}
	progress := new(apply.Progress)
	health := healthserver.New(healthserver.Config{
		Netns: a.netns, Sockets: u.sockets, Addrs: a.node.Addrs, Progress: progress, Log: log, Figures: []prometheus.Collector{u.board.Collector(a.node.Name), a.dataplane, a.dns, a.ingress},
		Failed: func(service model.ServiceName, port uint16, err error) {
			u.notices.Warn(a.node.Name, service, "FailedToStartServiceHealthcheck",
				fmt.Sprintf("node %s failed to start healthcheck %q on port %d: %v", a.node.Name, service, port, err))
		},
	})
	u.goServe("health of "+a.node.Name, health.Run)
	a.loopback = localhost.New(localhost.Config{Netns: a.netns, Sockets: u.sockets, Log: log})
	u.goServe("NodePorts at the loopback of "+a.node.Name, a.loopback.Run)
	loop := apply.New(apply.Config{
		Source: a.view, Node: a.node, Board: u.board, Log: log, Progress: progress,
		Programmers: []apply.Programmer{a.dataplane}, Publishers: append(publishers, a.ingress, health, a.loopback, a.corefile, a.lastGood),
	})
	u.goRun("data path of "+a.node.Name, loop.Run)
	return nil
}

// speakers make load balancer addresses known on the node's link, in the families that the node has.
func (u *instanceRun) speakers(a *agent, log *slog.Logger) (all []*lan.Speaker) {
	conflict := func(services []model.ServiceName, text string) {
		for _, s := range services {
			u.notices.Warn(a.node.Name, s, "AddressConflict", text)
		}
	}
	if addr := a.node.Addr(false); addr.IsValid() {
		all = append(all, arp.New(arp.Config{Node: a.node.Name, Netns: a.netns, Addr: addr, Log: log, Conflict: conflict}))
	}
	if addr := a.node.Addr(true); addr.IsValid() {
		all = append(all, ndp.New(ndp.Config{Node: a.node.Name, Netns: a.netns, Addr: addr, Log: log, Conflict: conflict}))
	}
	return all
}

func (u *instanceRun) startKubelet(a *agent) error {
	cfg, err := u.api.NodeConfig(a.node.Name)
	if err != nil {
		return err
	}
	cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return a.uplink.dial(ctx) }
	client, err := kube.Client(cfg)
	if err != nil {
		return err
	}
	serving, err := u.api.KubeletServing(a.node.Name, a.node.Addrs...)
	if err != nil {
		return err
	}
	cri, images, err := u.containerd.CRI(u.ctx)
	if err != nil {
		return err
	}
	core := u.api.Informers().Core().V1()
	services := core.Services()
	dir := u.inst.NodeDir(a.node.Name)
	a.kubelet, err = kubelet.New(kubelet.Config{
		NodeName: a.node.Name, Addresses: a.node.Addrs, Netns: a.netns, Listen: u.listenOn(a), PodCIDRs: texts(a.node.PodCIDRs),
		Client: client, Services: services.Lister(), ServicesSynced: services.Informer().HasSynced,
		ConfigMaps: core.ConfigMaps().Informer(), Secrets: core.Secrets().Informer(),
		Runtime: cri, Images: images, Exits: u.containerd.Exits, ClusterDNS: u.cfg.DNSAddrs()[:1], ClusterDomain: u.cfg.ClusterDomain,
		Serving: serving, ClientCA: u.api.ClientCA(), StateDir: dir, PodLogsDir: filepath.Join(dir, "logs"),
		SeccompDir: filepath.Join(u.inst.StateDir, "seccomp"),
		Withdrawn: func(ctx context.Context, namespace, name string) error {
			return withdrawn(ctx, u.builder, u.board, u.applied, namespace, name)
		},
		Settled:    func(ctx context.Context) error { return u.board.Wait(ctx, appliedBy(len(u.cfg.Nodes))) },
		CgroupRoot: u.inst.CgroupRoot(), LeaseInterval: leaseInterval, Log: u.opt.Log.With("node", a.node.Name),
	})
	if err != nil {
		return err
	}
	u.api.Informers().Start(u.ctx.Done()) // what was added above
	u.goRun("kubelet of "+a.node.Name, a.kubelet.Run)
	return nil
}

func texts(prefixes []netip.Prefix) (all []string) {
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return all
}
