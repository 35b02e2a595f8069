package run

import (
	"log/slog"

	"minato/internal/dns/corefile"
	dnsserver "minato/internal/dns/server"
)

// dnsHost is what a Corefile cannot know of this instance.
func (u *instanceRun) dnsHost() corefile.Host {
	return corefile.Host{Domain: u.cfg.ClusterDomain, Resolvers: dnsserver.Forward{Zone: ".", Upstreams: u.cfg.UpstreamDNS, ResolvConf: resolvConf}}
}

// corefile gives the DNS of a node what the ConfigMaps coredns and coredns-custom say.
func (u *instanceRun) corefile(a *agent, log *slog.Logger) *corefile.Applier {
	host := u.dnsHost()
	return &corefile.Applier{
		Host: host, Table: a.table, Server: a.dns, Log: log, PodExists: u.api.HasPod,
		Defaults: dnsserver.Settings{LogErrors: true, Forward: []dnsserver.Forward{host.Resolvers}},
	}
}
