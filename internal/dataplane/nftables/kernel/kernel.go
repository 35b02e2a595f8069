//go:build linux

// Package kernel programs the plan of package nftables into the nf_tables of one node's network namespace.
//
// The rules are static and few; all that changes is elements of maps: a frontend's look-up gives a pool and a class,
// the class's chain chooses a slot of the pool, the slot names an endpoint, and the endpoint is an address. So the
// work for a change is proportional to the change, whatever the number of Services, and what a packet meets can be
// read back exactly. There is one table per IP family, which is the Applier's own.
//
// An Applier knows what it last committed (State), computes from that and the plan what to change (assign), and
// commits it in steps between which every look-up finds what it needs. At its start, after errors and when asked it
// reads the kernel again; what another process did to the table is found and repaired. Ids are adopted from the
// kernel, so a restart changes no element.
//
// It does not choose backends (model.Select does), watch anything by itself, or touch any table but its own; of
// conntrack it deletes only flows of UDP and SCTP to endpoints that are gone, and of TCP those that nobody has answered,
// and it sets two timeouts of TCP.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/nfnl"
)

// Kernel is the nf_tables of one network namespace. *nfnl.Conn is the real one.
type Kernel interface {
	Commit(*nfnl.Batch) error
	Generation() (uint32, error)
	Tables(nfnl.Family) ([]nfnl.Table, error)
	Chains(f nfnl.Family, table string) ([]nfnl.Chain, error)
	Rules(f nfnl.Family, table, chain string) ([]nfnl.Rule, error)
	Elements(f nfnl.Family, table, set string, restart func(), yield func(nfnl.Element)) error
	Element(f nfnl.Family, table, set string, key []byte) (e nfnl.Element, ok bool, err error)
	Count(f nfnl.Family, table, set string) (n int, ok bool, err error)
	Close() error
}

// DefaultTable is the name of the tables when Config has none.
const DefaultTable = "minato"

// Config is what an Applier works with. Every field may be left zero.
type Config struct {
	Netns        netns.NS       // the node's namespace
	Kernel       Kernel         // instead of Netns: one that is open already; Close closes it
	Conntrack    Conntrack      // with Kernel; nil: no flows are deleted
	Table        string         // name of the tables, DefaultTable
	IPv4Only     bool           // no table for IPv6
	ServiceCIDRs []netip.Prefix // addresses of it that are no ClusterIP are dropped, ports that are none refused
	// AffinityClients is how many clients of each family are remembered, DefaultAffinityClients. Another number is another
	// version of the rules.
	AffinityClients int
	Log             *slog.Logger
}

// Applier keeps the tables of one node at the plan of the newest snapshot. Its methods may be called from any
// goroutine; they follow one another.
type Applier struct {
	cfg       Config
	kernel    *watched
	conntrack Conntrack
	metrics   metrics

	mu      sync.Mutex
	tables  []*table
	except  map[model.ServiceName]bool
	node    *nftables.NodePlan // in the kernel; nil: not known
	seen    *model.Snapshot    // of the last Program
	dirty   map[model.ServiceName]bool
	gone    map[model.ServiceName]bool           // something of theirs waits for Reap
	reread  map[model.ServiceName]*model.Service // refused even after the kernel was read again
	sweep   bool                                 // there may be elements that nobody holds
	lost    bool                                 // the kernel has to be read before anything else
	tracked *model.Snapshot                      // the last one compared for flows that lead nowhere
	stale   map[model.ServiceName]bool           // flows of theirs have to be looked at
	lostTCP map[model.ServiceName]unanswered
	wentTCP chan struct{} // lostTCP has something for Run
}

// MinimumKernel is the oldest Linux whose nf_tables have everything that the rules use.
const MinimumKernel = "5.13"

// Open opens the node's nf_tables and reads what a previous process left there. A table with the present rules is
// adopted; one with other rules stays as it is until the first complete snapshot replaces it in one transaction.
func Open(cfg Config) (*Applier, error) {
	if cfg.Table == "" {
		cfg.Table = DefaultTable
	}
	if cfg.AffinityClients == 0 {
		cfg.AffinityClients = DefaultAffinityClients
	}
	a := &Applier{cfg: cfg, kernel: &watched{Kernel: cfg.Kernel}, conntrack: cfg.Conntrack, metrics: newMetrics(), except: map[model.ServiceName]bool{}, dirty: map[model.ServiceName]bool{},
		gone: map[model.ServiceName]bool{}, reread: map[model.ServiceName]*model.Service{}, stale: map[model.ServiceName]bool{},
		lostTCP: map[model.ServiceName]unanswered{}, wentTCP: make(chan struct{}, 1)}
	if a.cfg.Log == nil {
		a.cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Kernel == nil {
		conn, err := nfnl.Open(cfg.Netns)
		if err != nil {
			return nil, err
		}
		a.kernel.Kernel, a.conntrack = conn, conn
	}
	for _, f := range []*family{&ipv4, &ipv6} {
		if !f.ipv6 || !cfg.IPv4Only {
			a.tables = append(a.tables, newTable(a.kernel, f, cfg.Table, cfg.AffinityClients))
		}
	}
	if err := a.observe(); err != nil {
		a.kernel.Close()
		return nil, err
	}
	if cfg.Kernel == nil {
		a.setTimeouts()
	}
	return a, nil
}

// Present reports whether a process has programmed the node whose namespace it is, so that addresses work that it knew.
func Present(ns netns.NS) (bool, error) {
	conn, err := nfnl.Open(ns)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	for _, f := range []*family{&ipv4, &ipv6} {
		tables, err := conn.Tables(f.id)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(tables, func(t nfnl.Table) bool { return t.Name == DefaultTable }) {
			return true, nil
		}
	}
	return false, nil
}

// explainFloor says what an old kernel means by its refusal.
func explainFloor(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("nf_tables of this kernel lack something; Linux %s or newer with CONFIG_NF_TABLES and CONFIG_NFT_NAT is needed: %w",
			MinimumKernel, err)
	}
	return err
}

// Name names the component in the status.
func (a *Applier) Name() string { return "nftables" }

// Except leaves out the frontends of these Services from the next Program on, because the node itself answers at
// their addresses: kube-dns while the node-local DNS server runs. It replaces the list of the last call.
func (a *Applier) Except(names ...model.ServiceName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := map[model.ServiceName]bool{}
	for _, n := range names {
		next[n] = true
		if !a.except[n] {
			a.dirty[n] = true
		}
	}
	for n := range a.except {
		if !next[n] {
			a.dirty[n] = true
		}
	}
	a.except = next
}

// Close closes the socket. The tables stay and go on working.
func (a *Applier) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kernel.Close()
}

// Remove deletes the tables. The Applier can only be closed after that.
func (a *Applier) Remove(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.remove(); err != nil {
			return err
		}
	}
	return nil
}
