package run

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"

	"minato/internal/announce/arp"
	"minato/internal/announce/lan"
	"minato/internal/announce/ndp"
	"minato/internal/apply"
	"minato/internal/cluster/kubelet"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/dns"
	dnsserver "minato/internal/dns/server"
	healthserver "minato/internal/health/server"
	"minato/internal/ingress/proxy"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/source/kube"
)

// dnsService is the Service at whose address every node answers DNS by itself.
var dnsService = model.ServiceName{Namespace: "kube-system", Name: "kube-dns"}

// except are the Services that the dataplane leaves alone, because the node itself answers at their addresses.
func except() map[model.ServiceName]bool { return map[model.ServiceName]bool{dnsService: true} }

// resolvConf lists the host's resolvers.
const resolvConf = "/etc/resolv.conf"

// agent is the data path of one node, and its kubelet.
type agent struct {
	node      model.Node
	netns     netns.NS
	dataplane *kernel.Applier
	table     *dns.Table
	dns       *dnsserver.Server
	kubelet   *kubelet.Kubelet
	ingress   *proxy.Server
}

// newAgent starts everything of the i-th node.
func (u *instanceRun) newAgent(i int) (a *agent, err error) {
	n := u.cfg.Nodes[i]
	a = &agent{node: model.Node{Name: n.Name, Addrs: n.Addrs, PodCIDRs: u.cfg.NodePodCIDRs(i)}}
	if a.netns, err = u.network.Netns(n.Name); err != nil {
		return nil, err
	}
	a.node.Netns = a.netns.Path()
	if err := u.startDataPath(a); err != nil {
		return nil, err
	}
	return a, u.startKubelet(a)
}

// startDataPath wires source -> apply -> nftables and DNS for one node.
func (u *instanceRun) startDataPath(a *agent) (err error) {
	log := u.opt.Log.With("node", a.node.Name)
	a.dataplane, err = kernel.Open(kernel.Config{Netns: a.netns, ServiceCIDRs: u.cfg.ServiceCIDRs(), IPv4Only: !u.cfg.HasIPv6(), Log: log})
	if err != nil {
		return err
	}
	a.dataplane.Except(dnsService)                // answered on the node itself
	u.onClose(func() { _ = a.dataplane.Close() }) // the table stays: connections go on
	a.table, err = dns.NewTable(u.zone())
	if err != nil {
		return err
	}
	a.dns, err = dnsserver.New(dnsserver.Config{
		Netns: a.netns, Addrs: u.cfg.DNSAddrs(), Table: a.table, Log: log, Handover: u.sockets,
		HTTP:      dnsserver.HTTP{Health: 8080, Ready: 8181, Metrics: 9153},
		Clients:   slices.Concat(u.cfg.PodCIDRs(), u.cfg.NodeCIDRs(), u.cfg.ServiceCIDRs()),
		Upstreams: u.cfg.UpstreamDNS, ResolvConf: resolvConf, // asked from the host's namespace
	})
	if err != nil {
		return err
	}
	u.goServe("DNS of "+a.node.Name, a.dns.Run)
	publishers := []apply.Publisher{a.table}
	for _, s := range speakers(a, log) {
		u.goServe(s.Name()+" announcements of "+a.node.Name, s.Run)
		publishers = append(publishers, s)
	}
	if err := u.startIngress(a, log); err != nil {
		return err
	}
	progress := new(apply.Progress)
	health := healthserver.New(healthserver.Config{
		Netns: a.netns, Sockets: u.sockets, Addrs: a.node.Addrs, Progress: progress, Log: log, Metrics: u.metrics(a),
		Failed: func(service model.ServiceName, port uint16, err error) {
			u.notices.Warn(a.node.Name, service, "FailedToStartServiceHealthcheck",
				fmt.Sprintf("node %s failed to start healthcheck %q on port %d: %v", a.node.Name, service, port, err))
		},
	})
	u.goServe("health of "+a.node.Name, health.Run)
	loop := apply.New(apply.Config{
		Source: u.builder, Node: a.node, Board: u.board, Log: log, Progress: progress,
		Programmers: []apply.Programmer{a.dataplane}, Publishers: append(publishers, a.ingress, health, u.corefile(a, log)),
	})
	u.goRun("data path of "+a.node.Name, loop.Run)
	return nil
}

// zone is the part of the name space that is the cluster's own.
func (u *instanceRun) zone() dns.Zone {
	return dns.Zone{
		Domain: u.cfg.ClusterDomain, Reverse: append(u.cfg.ServiceCIDRs(), u.cfg.PodCIDRs()...),
		Addrs: u.cfg.DNSAddrs(), Service: dnsService,
	}
}

// speakers make load balancer addresses known on the node's link, in the families that the node has.
func speakers(a *agent, log *slog.Logger) (all []*lan.Speaker) {
	if addr := a.node.Addr(false); addr.IsValid() {
		all = append(all, arp.New(arp.Config{Node: a.node.Name, Netns: a.netns, Addr: addr, Log: log}))
	}
	if addr := a.node.Addr(true); addr.IsValid() {
		all = append(all, ndp.New(ndp.Config{Node: a.node.Name, Netns: a.netns, Addr: addr, Log: log}))
	}
	return all
}

func (u *instanceRun) startKubelet(a *agent) error {
	cfg, err := u.api.NodeConfig(a.node.Name)
	if err != nil {
		return err
	}
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
	dir := filepath.Join(u.inst.StateDir, "nodes", a.node.Name)
	a.kubelet, err = kubelet.New(kubelet.Config{
		NodeName: a.node.Name, Addresses: a.node.Addrs, Netns: a.netns, Listen: u.listenOn(a), PodCIDRs: texts(a.node.PodCIDRs),
		Client: client, Services: services.Lister(), ServicesSynced: services.Informer().HasSynced,
		ConfigMaps: core.ConfigMaps().Informer(), Secrets: core.Secrets().Informer(),
		Runtime: cri, Images: images, Exits: u.containerd.Exits, ClusterDNS: u.cfg.DNSAddrs()[:1], ClusterDomain: u.cfg.ClusterDomain,
		Serving: serving, ClientCA: u.api.ClientCA(), StateDir: dir, PodLogsDir: filepath.Join(dir, "logs"),
		SeccompDir: filepath.Join(u.inst.StateDir, "seccomp"),
		Withdrawn: func(ctx context.Context, namespace, name string) error {
			return withdrawn(ctx, u.builder, u.board, namespace, name)
		},
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
