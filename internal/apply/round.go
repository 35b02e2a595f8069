package apply

import (
	"context"
	"errors"
	"fmt"

	"minato/internal/model"
)

// round is one attempt to take the node to next.
type round struct {
	*Loop
	next   *model.Snapshot
	errs   map[string]error // by component
	failed failedError      // of all Programmers
	broken bool             // some Programmer failed as a whole
	stale  bool             // some Publisher failed, and may still name what is gone
}

// round runs all phases, reports what was reached, and says whether that is everything.
func (l *Loop) round(ctx context.Context, next *model.Snapshot) bool {
	r := round{Loop: l, next: next, errs: map[string]error{}, failed: failedError{}}
	r.withdraw(ctx)
	r.program(ctx)
	r.publish(ctx)
	r.reap(ctx)
	if ctx.Err() != nil {
		return false
	}
	if !r.broken {
		l.cfg.Progress.end()
	}
	return r.report()
}

func (r *round) fail(component string, err error) {
	if before := r.errs[component]; before != nil {
		err = fmt.Errorf("%w; %w", before, err)
	}
	r.errs[component] = err
}

func (r *round) withdraw(ctx context.Context) {
	for _, p := range r.cfg.Publishers {
		if err := p.Withdraw(ctx, r.next); err != nil {
			r.stale = true
			r.fail(p.Name(), fmt.Errorf("withdrawing: %w", err))
		}
	}
}

func (r *round) program(ctx context.Context) {
	for _, p := range r.cfg.Programmers {
		failed, err := p.Program(ctx, r.next)
		if err != nil {
			r.broken = true
			r.fail(p.Name(), fmt.Errorf("programming: %w", err))
		}
		if len(failed) > 0 {
			r.fail(p.Name(), failedError(failed))
		}
		for n, err := range failed {
			r.failed[n] = err
		}
	}
}

// held says which Services may not get new records. Those that nobody programs (headless, ExternalName) never wait.
func (r *round) held(n model.ServiceName) bool {
	if _, failed := r.failed[n]; failed {
		return true
	}
	if !r.broken {
		return false
	}
	svc := r.next.Service(n)
	return svc != nil && svc.Proxied
}

func (r *round) publish(ctx context.Context) {
	for _, p := range r.cfg.Publishers {
		if err := p.Publish(ctx, r.next, r.held); err != nil {
			r.stale = r.stale || !errors.Is(err, ErrWithdrawn)
			r.fail(p.Name(), fmt.Errorf("publishing: %w", err))
		}
		if n := r.waiting(); n > 0 {
			r.fail(p.Name(), heldError(n))
		}
	}
}

func (r *round) waiting() int {
	if !r.broken {
		return len(r.failed)
	}
	n := 0
	for svc := range r.next.Services() {
		if r.held(svc.Name) {
			n++
		}
	}
	return n
}

func (r *round) reap(ctx context.Context) {
	if r.broken {
		return
	}
	for _, p := range r.cfg.Programmers {
		if r.stale {
			r.fail(p.Name(), errors.New("what is gone stays programmed until it is withdrawn everywhere"))
		} else if err := p.Reap(ctx, r.next); err != nil {
			r.fail(p.Name(), fmt.Errorf("deleting what is gone: %w", err))
		}
	}
}

func (r *round) report() bool {
	node := r.cfg.Node.Name
	each := func(component string) {
		err := r.errs[component]
		r.cfg.Board.Report(node, component, r.next.Revision, err)
		if err != nil {
			r.cfg.Log.Warn("not all of a revision was applied", "node", node, "component", component,
				"revision", r.next.Revision, "error", err)
		}
	}
	for _, p := range r.cfg.Programmers {
		each(p.Name())
	}
	for _, p := range r.cfg.Publishers {
		each(p.Name())
	}
	return len(r.errs) == 0
}
