package run

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/dns"
	"minato/internal/dns/corefile"
	"minato/internal/dns/lastgood"
	dnsserver "minato/internal/dns/server"
	"minato/internal/model"
)

// dnsService is the Service at whose address every node answers DNS by itself.
var dnsService = model.ServiceName{Namespace: "kube-system", Name: "kube-dns"}

// resolvConf lists the host's resolvers.
const resolvConf = "/etc/resolv.conf"

// zone is the part of the name space that is the cluster's own.
func (u *instanceRun) zone() dns.Zone {
	return dns.Zone{
		Domain: u.cfg.ClusterDomain, Reverse: append(u.cfg.ServiceCIDRs(), u.cfg.PodCIDRs()...),
		Addrs: u.cfg.DNSAddrs(), Service: dnsService,
	}
}

// dnsHost is what a Corefile cannot know of this instance.
func (u *instanceRun) dnsHost() corefile.Host {
	return corefile.Host{Domain: u.cfg.ClusterDomain, Resolvers: dnsserver.Forward{Zone: ".", Upstreams: u.cfg.UpstreamDNS, ResolvConf: resolvConf}}
}

// startNames has a node answer DNS before there is an API, from what the last process knew: after a crash pods are
// there, and ask.
func (u *instanceRun) startNames(a *agent) (err error) {
	log := u.opt.Log.With("node", a.node.Name)
	if a.table, err = dns.NewTable(u.zone()); err != nil {
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
	host := u.dnsHost()
	a.corefile = &corefile.Applier{
		Host: host, Table: a.table, Server: a.dns, Log: log, PodExists: u.hasPod, PodsKnown: u.podsKnown,
		Defaults: dnsserver.Settings{LogErrors: true, Forward: []dnsserver.Forward{host.Resolvers}},
	}
	a.lastGood = lastgood.New(lastgood.Config{File: u.inst.NamesFile(a.node.Name), Table: a.table, Corefile: a.corefile, Log: log})
	if err := u.restoreNames(a, log); err != nil {
		return err
	}
	u.goRun("names on disk of "+a.node.Name, a.lastGood.Run)
	u.goServe("DNS of "+a.node.Name, a.dns.Run)
	return nil
}

// restoreNames takes up what the last process knew, where its addresses still work: the kernel has its rules. A
// predecessor that answers until this process has read the API knows more.
func (u *instanceRun) restoreNames(a *agent, log *slog.Logger) error {
	if err := os.MkdirAll(u.inst.NodeDir(a.node.Name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder of node %s: %w", a.node.Name, err)
	}
	if u.sockets.Succeeding() {
		return nil
	}
	programmed, err := kernel.Present(a.netns)
	if err != nil {
		log.Warn("dns: the last good names are not served: names are unknown until the API is up", "error", err)
	} else if programmed {
		a.lastGood.Restore()
	}
	return nil
}

// podsKnown reports whether there is an API whose pods have been read.
func (u *instanceRun) podsKnown() bool {
	api := u.pods.Load()
	return api != nil && api.PodsRead()
}

// hasPod reports whether a pod of the namespace has the address. Before there is an API none is known.
func (u *instanceRun) hasPod(namespace, addr string) bool {
	api := u.pods.Load()
	return api != nil && api.HasPod(namespace, addr)
}
