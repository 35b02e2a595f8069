//go:build linux

package kernel

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"minato/internal/model"
	"minato/internal/nfnl"
)

// unanswered are the endpoints of TCP which went without having ended, by what clients were translated from.
type unanswered map[destination]map[netip.AddrPort]bool

// noteUnanswered remembers the endpoints that a change has taken away, and forgets those that are back. Of
// endpoints that went while no process looked it does not know.
func (a *Applier) noteUnanswered(c model.ServiceChange, node *model.Node) {
	if c.New == nil || c.Old == nil || !c.New.Proxied || !c.Old.Proxied || slices.Equal(c.Old.Slices, c.New.Slices) {
		return
	}
	lost := a.lostTCP[c.Name]
	for _, f := range c.New.Frontends {
		if f.Protocol != model.TCP {
			continue
		}
		gone, there := changes(c.Old, c.New, f)
		if len(gone) == 0 && len(lost) == 0 {
			continue
		}
		if lost == nil {
			lost = unanswered{}
			a.lostTCP[c.Name] = lost
		}
		for d := range destinations(f, node) {
			lost.change(d, gone, there)
		}
	}
	if lost != nil && len(lost) == 0 {
		delete(a.lostTCP, c.Name)
	}
}

func (u unanswered) change(d destination, gone []netip.AddrPort, there map[netip.AddrPort]bool) {
	if u[d] == nil {
		u[d] = map[netip.AddrPort]bool{}
	}
	for _, e := range gone {
		u[d][e] = true
	}
	for e := range u[d] {
		if there[e] {
			delete(u[d], e)
		}
	}
	if len(u[d]) == 0 {
		delete(u, d)
	}
}

// changes are the endpoints of a frontend that have gone without having ended, and those that are there.
func changes(before, after *model.Service, f model.Frontend) (gone []netip.AddrPort, there map[netip.AddrPort]bool) {
	there = map[netip.AddrPort]bool{}
	for b := range after.Backends(f.PortName, f.Protocol) {
		if b.Ready || b.Serving || b.Terminating {
			there[b.Addr] = true
		}
	}
	for b := range before.Backends(f.PortName, f.Protocol) {
		if (b.Ready || b.Serving) && !b.Terminating && !there[b.Addr] {
			gone = append(gone, b.Addr)
		}
	}
	return gone, there
}

// takeUnanswered takes what was noted of the Services that are programmed: of the others, such flows would come again.
func (a *Applier) takeUnanswered() unanswered {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := unanswered{}
	for n, lost := range a.lostTCP {
		if a.dirty[n] {
			continue
		}
		for d, endpoints := range lost {
			all[d] = endpoints
		}
		delete(a.lostTCP, n)
	}
	return all
}

// How long Run gathers endpoints that went, and how often it looks for their flows at most.
const (
	unansweredRest  = 100 * time.Millisecond
	unansweredLeast = time.Second
	unansweredShare = 300 // and this many times as long as it took
)

// Run deletes the flows of TCP that endpoints have left unanswered which went without having ended, until ctx ends; it
// returns nil. It looks shortly after Program and not in it, for the kernel takes milliseconds to list flows even where
// there are none, and seldom, because in a rollout such endpoints go again and again. It also looks how many clients
// affinity remembers.
func (a *Applier) Run(ctx context.Context) error {
	conntrack, rules := a.conntrack, Kernel(a.kernel)
	if a.cfg.Kernel == nil { // not the socket that Program waits for
		conn, err := nfnl.Open(a.cfg.Netns)
		if err != nil {
			return err
		}
		defer conn.Close()
		conntrack, rules = conn, conn
	}
	look := time.NewTicker(affinityEvery)
	defer look.Stop()
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := a.lookAtAffinity(rules); err != nil {
				a.cfg.Log.Warn("it is not known how many clients session affinity remembers", "namespace", a.cfg.Netns.String(), "error", err)
			}
			continue
		case <-a.wentTCP:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(unansweredRest, time.Until(next))):
		}
		lost := a.takeUnanswered()
		if len(lost) == 0 {
			continue // it is back: nothing was listed, so there is nothing to rest from
		}
		start := time.Now()
		if err := a.deleteUnanswered(conntrack, lost); err != nil {
			a.cfg.Log.Warn("connections to endpoints that are gone may wait for an answer", "namespace", a.cfg.Netns.String(), "error", err)
		}
		next = time.Now().Add(max(unansweredLeast, unansweredShare*time.Since(start)))
	}
}

// deleteUnanswered deletes the flows of TCP to lost endpoints that nobody has answered.
func (a *Applier) deleteUnanswered(conntrack Conntrack, lost unanswered) error {
	families := map[nfnl.Family]bool{}
	for d := range lost {
		families[nfnl.FamilyOf(d.addr.Addr())] = true
	}
	var waiting []nfnl.Flow
	var errs []error
	for f := range families {
		errs = append(errs, conntrack.Flows(f, uint8(model.TCP), func(flow nfnl.Flow) {
			if flow.State == nfnl.SYNSent && lost[destination{model.TCP, flow.Dst}][flow.ReplySrc] {
				waiting = append(waiting, flow)
			}
		}))
	}
	for _, flow := range waiting {
		errs = append(errs, conntrack.DeleteFlow(flow))
		a.metrics.deleted.WithLabelValues(familyLabel(flow.Family)).Inc()
	}
	return errors.Join(errs...)
}
