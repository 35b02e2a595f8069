package corefile

import (
	"context"
	"fmt"
	"log/slog"

	"minato/internal/apply"
	"minato/internal/dns"
	"minato/internal/dns/server"
	"minato/internal/model"
)

// Applier is an apply.Publisher which gives one node's DNS what the ConfigMaps say. Nothing waits for it: a broken
// Corefile leaves in force what was before, and is reported.
type Applier struct {
	Host      Host
	Table     interface{ SetOptions(dns.Options) }
	Server    interface{ Configure(server.Settings) error }
	Defaults  server.Settings // in force while there is no Corefile
	PodExists func(namespace, addr string) bool
	Log       *slog.Logger

	last *model.DNSConfig
	err  error
}

// Name is the component's name in reports.
func (*Applier) Name() string { return "corefile" }

// Withdraw does nothing: settings have no addresses.
func (*Applier) Withdraw(context.Context, *model.Snapshot) error { return nil }

// Publish takes over the settings of next, if they are others.
func (a *Applier) Publish(_ context.Context, next *model.Snapshot, _ func(model.ServiceName) bool) error {
	if next.DNS == a.last {
		return a.err
	}
	a.last, a.err = next.DNS, nil
	c := &Config{Server: a.Defaults}
	if next.DNS != nil {
		var err error
		if c, err = Parse(next.DNS.Corefile, next.DNS.Custom, a.Host); err != nil {
			a.err = fmt.Errorf("mend ConfigMap kube-system/coredns; what was in force before it stays: %w: %w", err, apply.ErrWithdrawn)
			return a.err
		}
	}
	for _, w := range c.Warnings {
		a.Log.Warn("dns: Corefile", "warning", w)
	}
	if err := a.Server.Configure(c.Server); err != nil {
		a.err = fmt.Errorf("mend ConfigMap kube-system/coredns; what was in force before it stays: %w: %w", err, apply.ErrWithdrawn)
		return a.err
	}
	c.Cluster.PodExists = a.PodExists
	a.Table.SetOptions(c.Cluster)
	return nil
}

// Problems are what is wrong with a configuration, in words for the one who wrote it; none when it is nil.
func Problems(c *model.DNSConfig, host Host) (warnings []string, err error) {
	if c == nil {
		return nil, nil
	}
	parsed, err := Parse(c.Corefile, c.Custom, host)
	if err != nil {
		return nil, err
	}
	return parsed.Warnings, nil
}
