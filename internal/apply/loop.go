package apply

import (
	"context"
	"time"

	"minato/internal/model"
)

// Loop keeps one node at the newest snapshot. New makes one; Run runs it.
type Loop struct {
	cfg  Config
	view view
}

// New makes a Loop. It does nothing before Run.
func New(cfg Config) *Loop {
	cfg.defaults()
	node := cfg.Node
	return &Loop{cfg: cfg, view: view{base: cfg.Node, node: &node}}
}

// Run works until ctx ends, and then returns nil. It starts no goroutines. Nothing is touched before the first
// complete snapshot.
func (l *Loop) Run(ctx context.Context) error {
	changed, cancel := l.cfg.Source.Subscribe()
	defer cancel()
	observe := time.NewTicker(l.cfg.ObserveEvery)
	defer observe.Stop()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	backoff := l.cfg.RetryMin
	var last time.Time // end of the last round
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			l.cfg.Progress.begin()
			if time.Since(last) < l.cfg.Max {
				l.settle(ctx, changed)
			}
		case <-retry.C:
		case <-observe.C:
			if !l.observe(ctx) {
				continue
			}
		}
		next := l.cfg.Source.Current()
		if !next.Complete || ctx.Err() != nil {
			continue
		}
		done := l.round(ctx, l.view.of(next))
		last = time.Now()
		if done {
			backoff = l.cfg.RetryMin
			retry.Stop()
			continue
		}
		retry.Reset(backoff)
		backoff = min(2*backoff, l.cfg.RetryMax)
	}
}

// settle waits until changes have come to rest, so that a rollout costs a few rounds and not one for each pod. The
// first change after a time of rest does not wait for others.
func (l *Loop) settle(ctx context.Context, changed <-chan struct{}) {
	limit := time.NewTimer(l.cfg.Max)
	defer limit.Stop()
	idle := time.NewTimer(l.cfg.Idle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			return
		case <-idle.C:
			return
		case <-changed:
			idle.Reset(l.cfg.Idle)
		}
	}
}

// observe reports whether the kernel is to be repaired.
func (l *Loop) observe(ctx context.Context) (differs bool) {
	first := l.cfg.Progress.begin() // until the kernel has answered
	for _, p := range l.cfg.Programmers {
		if o, ok := p.(Observer); ok {
			d, err := o.Observe(ctx)
			if err != nil {
				l.cfg.Log.Warn("reading the kernel's state failed", "node", l.cfg.Node.Name, "component", p.Name(), "error", err)
			}
			differs = differs || d
		}
	}
	if first && !differs {
		l.cfg.Progress.cancel()
	}
	return differs
}

// view shows a snapshot as this node sees it. The same API node gives the same *model.Node, so that model.Diff can
// compare by pointer. A node that the API has lost stays as it was last known.
type view struct {
	base model.Node
	api  *model.Node
	node *model.Node
}

func (v *view) of(s *model.Snapshot) *model.Snapshot {
	if api := s.NodeNamed(v.base.Name); api != nil && api != v.api {
		n := *api
		n.Netns = v.base.Netns
		if len(n.Addrs) == 0 {
			n.Addrs = v.base.Addrs
		}
		if len(n.PodCIDRs) == 0 {
			n.PodCIDRs = v.base.PodCIDRs
		}
		v.api, v.node = api, &n
	}
	return s.On(v.node)
}
