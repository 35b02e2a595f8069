package corefile

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"minato/internal/dns"
	"minato/internal/dns/server"
	"minato/internal/model"
)

// Applier is an apply.Publisher which gives one node's DNS what the ConfigMaps say. Nothing waits for it: a broken
// Corefile leaves in force what was before, and Problem says so.
type Applier struct {
	Host      Host
	Table     interface{ SetOptions(dns.Options) }
	Server    interface{ Configure(server.Settings) error }
	Defaults  server.Settings // in force while there is no Corefile
	PodExists func(namespace, addr string) bool
	PodsKnown func() bool // whether PodExists can say yet
	Log       *slog.Logger

	last    *model.DNSConfig // that was tried
	good    atomic.Pointer[model.DNSConfig]
	problem atomic.Pointer[string]
}

// Name is the component's name in reports.
func (*Applier) Name() string { return "corefile" }

// Withdraw does nothing: settings have no addresses.
func (*Applier) Withdraw(context.Context, *model.Snapshot) error { return nil }

// Publish takes over the settings of next, if they are others. It never fails: to try again would not help.
func (a *Applier) Publish(_ context.Context, next *model.Snapshot, _ func(model.ServiceName) bool) error {
	if !next.DNSKnown || next.DNS.Equal(a.last) {
		return nil
	}
	a.take(next.DNS)
	return nil
}

// Restore takes over settings that were in force in another process, before the first Publish.
func (a *Applier) Restore(d *model.DNSConfig) { a.take(d) }

// InForce is what was configured of what is in force, nil when that is nothing. It may be called at any time.
func (a *Applier) InForce() *model.DNSConfig { return a.good.Load() }

func (a *Applier) take(d *model.DNSConfig) {
	a.last = d
	if err := a.apply(d); err != nil {
		text := fmt.Sprintf("mend ConfigMap kube-system/coredns; what was in force before it stays: %v", err)
		a.problem.Store(&text)
		a.Log.Warn("dns: Corefile", "error", err)
		return
	}
	a.good.Store(d)
	a.problem.Store(nil)
}

// Problem is what is wrong with the newest Corefile, "" when it is in force.
func (a *Applier) Problem() string {
	if p := a.problem.Load(); p != nil {
		return *p
	}
	return ""
}

func (a *Applier) apply(d *model.DNSConfig) error {
	c := &Config{Server: a.Defaults}
	if d != nil {
		var err error
		if c, err = Parse(d.Corefile, d.Custom, a.Host); err != nil {
			return err
		}
	}
	for _, w := range c.Warnings {
		a.Log.Warn("dns: Corefile", "warning", w)
	}
	if err := a.Server.Configure(c.Server); err != nil {
		return err
	}
	c.Cluster.PodExists, c.Cluster.PodsKnown = a.PodExists, a.PodsKnown
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
