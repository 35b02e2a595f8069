package run

import (
	"context"
	"fmt"
	"time"

	"minato/internal/apply"
	"minato/internal/model"
	"minato/internal/status"
)

// underway is how long a packet that was sent before the last node withdrew an endpoint may take to arrive.
const underway = 10 * time.Millisecond

// withdrawn returns when every node that can be reached has applied a revision in which the pod gets no new connections.
func withdrawn(ctx context.Context, from apply.Source, board *status.Board, applied func(revision uint64) func([]status.Entry) bool, namespace, name string) error {
	changed, cancel := from.Subscribe()
	defer cancel()
	var revision uint64
	for {
		snapshot := from.Current()
		selected, inUse := use(snapshot, namespace, namespace+"/"+name)
		if !selected {
			return nil
		}
		if !inUse {
			revision = snapshot.Revision
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its endpoints do not say yet that it terminates: %w", ctx.Err())
		case <-changed:
		}
	}
	err := board.Wait(ctx, applied(revision))
	if err != nil {
		return fmt.Errorf("not every node has applied revision %d: %w", revision, err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(underway):
	}
	return nil
}

// use reports whether some Service has the pod as a backend, and whether one still sends it new connections although
// others are there.
func use(s *model.Snapshot, namespace, pod string) (selected, inUse bool) {
	for svc := range s.ServicesIn(namespace) {
		for b := range svc.AllBackends() {
			if b.Target == pod {
				selected = true
				inUse = inUse || b.Ready && !b.Terminating
			}
		}
	}
	return selected, inUse
}

// appliedBy is true when every component of n nodes has applied something, or said that it cannot.
func appliedBy(n int) func([]status.Entry) bool {
	return func(entries []status.Entry) bool {
		seen := map[string]bool{}
		for _, e := range entries {
			if e.Node != "" && e.Applied == 0 && e.Error == "" {
				return false
			}
			if e.Node != "" {
				seen[e.Node] = true
			}
		}
		return len(seen) >= n
	}
}
