//go:build linux

package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
	"minato/internal/nfnl"
)

// Program makes every frontend of next work. It adds and changes; a frontend that next does not have stays as it is
// until Reap. It looks only at what differs from the snapshot of the last call, and at what failed then.
//
// A Service in failed keeps its previous frontends; the others are done. An err says that the node as a whole is not
// programmed, and how far it is can only be told by reading the kernel, which the next call does.
func (a *Applier) Program(ctx context.Context, next *model.Snapshot) (failed map[model.ServiceName]error, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if next.Node == nil {
		return nil, errors.New("program nftables: the snapshot is of no node")
	}
	if a.outdated() && !next.Complete {
		return nil, nil
	}
	a.noteFlows(next)
	start := time.Now()
	r := round{Applier: a, ctx: ctx, next: next, left: map[model.ServiceName]bool{}}
	for range 2 { // the second time after the kernel was read again
		if a.lost {
			if err := a.observe(); err != nil {
				return nil, err
			}
		}
		r.failed = map[model.ServiceName]error{}
		if err = r.program(); err == nil && !a.lost {
			break
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	a.tidySets()
	failure := err != nil || len(r.failed) > 0
	if r.worked {
		a.programmed(start, r.full, r.causes, failure)
	}
	if !failure {
		a.metrics.upToDate(a.tables)
	}
	if err == nil {
		r.deleteFlows()
	}
	if len(a.lostTCP) > 0 {
		select {
		case a.wentTCP <- struct{}{}:
		default:
		}
	}
	return r.failed, err
}

// Reap deletes what next does not have. Before a snapshot is complete it does nothing; a Service whose programming
// failed keeps what it had.
func (a *Applier) Reap(ctx context.Context, next *model.Snapshot) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !next.Complete || a.lost || a.outdated() {
		return nil
	}
	r := round{Applier: a, ctx: ctx, next: next, reap: true, failed: map[model.ServiceName]error{}, left: map[model.ServiceName]bool{}}
	r.bind()
	for n := range a.dirty {
		delete(a.gone, n)
	}
	err := r.run(sorted(a.gone))
	a.tidySets()
	if err != nil {
		a.metrics.cleanups.Inc()
		return err
	}
	if len(r.failed) > 0 {
		a.metrics.cleanups.Inc()
		return fmt.Errorf("delete frontends: %w", errors.Join(slices.Collect(maps.Values(r.failed))...))
	}
	if a.sweep && len(a.dirty) == 0 {
		return r.sweepAll()
	}
	return nil
}

// tidySets replaces empty sets: to go through a map costs what it has ever held, which is all Services at the start.
func (a *Applier) tidySets() {
	for _, set := range []*map[model.ServiceName]bool{&a.dirty, &a.gone, &a.stale} {
		if len(*set) == 0 {
			*set = map[model.ServiceName]bool{}
		}
	}
}

func (a *Applier) outdated() bool {
	return slices.ContainsFunc(a.tables, func(t *table) bool { return t.outdated })
}

// observe reads all tables again. Everything is planned and claimed anew after that.
func (a *Applier) observe() error {
	a.lost, a.sweep, a.node, a.seen = true, true, nil, nil
	start := time.Now()
	if err := a.kernel.begin(); err != nil {
		return explainFloor(err)
	}
	for _, t := range a.tables {
		if err := t.observe(); err != nil {
			return explainFloor(err)
		}
	}
	a.lost = false
	return a.kernel.end(start)
}

// round is one call of Program or Reap.
type round struct {
	*Applier
	ctx    context.Context
	next   *model.Snapshot
	reap   bool
	failed map[model.ServiceName]error
	left   map[model.ServiceName]bool // something waits for Reap

	worked, full bool    // something was to be done; everything was planned
	causes       []cause // of what changed
}

func sorted(set map[model.ServiceName]bool) []model.ServiceName {
	return slices.SortedFunc(maps.Keys(set), model.ServiceName.Compare)
}

// bind lets the tables ask for the plans of next where frontends collide.
func (r *round) bind() {
	for _, t := range r.tables {
		t.stillWanted = func(n model.ServiceName, k nftables.Key) bool {
			_, _, ok := r.plan(n).Frontend(k)
			return ok
		}
	}
}

func (r *round) plan(n model.ServiceName) *nftables.ServicePlan {
	return nftables.PlanService(r.next.Service(n), r.next.Node, r.except[n])
}

func (r *round) program() error {
	r.bind()
	node := nftables.PlanNode(r.next.Node)
	r.full = r.full || r.seen == nil
	for _, c := range model.Diff(r.seen, r.next).Services {
		r.dirty[c.Name] = true
		if !r.full {
			r.causes = append(r.causes, r.metrics.changed(c)...)
		}
	}
	if r.node == nil || !r.node.Equal(node) {
		for s := range r.next.Services() {
			r.dirty[s.Name] = true
		}
		for _, t := range r.tables {
			if err := t.setNode(node, r.cfg); err != nil {
				r.lost = true
				return err
			}
		}
		r.node = &node
	}
	r.seen = r.next
	for n := range r.dirty {
		if r.next.Service(n) == nil {
			delete(r.dirty, n)
			r.gone[n] = true
		}
	}
	r.worked = r.worked || len(r.dirty) > 0
	return r.run(sorted(r.dirty))
}

// run assigns and commits Services in groups of a bounded number of operations.
func (r *round) run(names []model.ServiceName) error {
	limit := batchLimit
	if r.outdated() {
		limit = 1 << 30 // one transaction
	}
	changes := r.newChanges()
	defer func() {
		for _, t := range r.tables {
			t.tidy()
		}
	}()
	for len(names) > 0 || r.outdated() {
		n := r.assignGroup(names, changes, limit)
		if err := r.commitGroup(names[:n], changes); err != nil {
			return err
		}
		names = names[n:]
		for _, c := range changes {
			c.reset()
		}
	}
	return nil
}

// newChanges are empty changes, one for each table.
func (r *round) newChanges() (changes []*change) {
	for range r.tables {
		changes = append(changes, newChange())
	}
	return changes
}

// assignGroup assigns Services from the head of names until there are enough operations for a commit.
func (r *round) assignGroup(names []model.ServiceName, changes []*change, limit int) (n int) {
	for operations := 0; n < len(names) && operations < limit; n++ {
		operations = r.assignOne(names[n], changes)
	}
	return n
}

func (r *round) assignOne(n model.ServiceName, changes []*change) (operations int) {
	plan := r.plan(n)
	for i, t := range r.tables {
		left, err := t.assign(changes[i], n, plan, r.reap)
		r.left[n] = r.left[n] && i > 0 || left
		if err != nil {
			r.failed[n] = err
		}
		operations += changes[i].len()
	}
	return operations
}

// commitGroup commits what was assigned for a group. Of a group that the kernel refuses, the halves are tried, down
// to the Services that are to blame.
func (r *round) commitGroup(group []model.ServiceName, changes []*change) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	for i, t := range r.tables {
		err := t.commit(changes[i])
		if err == nil {
			continue
		}
		r.sweep = true
		r.metrics.failures.WithLabelValues(familyLabel(t.id)).Inc()
		var refusal *nfnl.Error
		if !errors.As(err, &refusal) || t.outdated {
			r.lost = true
			return err
		}
		if len(group) <= 1 {
			r.refused(group, err)
			return nil
		}
		return r.halves(group)
	}
	for _, n := range group {
		r.done(n)
	}
	return nil
}

func (r *round) halves(group []model.ServiceName) error {
	half := len(group) / 2
	for _, g := range [][]model.ServiceName{group[:half], group[half:]} {
		changes := r.newChanges()
		r.assignGroup(g, changes, 1<<30)
		if err := r.commitGroup(g, changes); err != nil {
			return err
		}
	}
	return nil
}

// refused records that the kernel does not take a Service's elements. The first time the kernel is read again, for
// it may hold something else than is believed.
func (r *round) refused(group []model.ServiceName, err error) {
	for _, n := range group {
		r.failed[n] = err
		if svc := r.next.Service(n); r.reread[n] != svc || svc == nil {
			r.reread[n] = svc
			r.lost = true
		}
	}
}

func (r *round) done(n model.ServiceName) {
	if r.failed[n] != nil {
		return
	}
	delete(r.reread, n)
	if !r.reap {
		delete(r.dirty, n)
	}
	put(r.gone, n, true, !r.left[n])
}

// sweepAll deletes what nobody holds.
func (r *round) sweepAll() error {
	for _, t := range r.tables {
		c := newChange()
		t.sweep(c)
		if err := t.commit(c); err != nil {
			r.lost = true
			return fmt.Errorf("delete what no Service holds: %w", err)
		}
	}
	r.sweep = false
	return nil
}
