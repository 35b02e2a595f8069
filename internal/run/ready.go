package run

import (
	"context"

	"minato/internal/status"
)

// waitForNodes waits until every node is Ready in the API and its data path has reached what the API says.
func (u *instanceRun) waitForNodes() error {
	changed, cancel := u.builder.Subscribe()
	defer cancel()
	for _, a := range u.agents {
		if a.condition() != whole {
			continue
		}
		select {
		case <-u.ctx.Done():
			return context.Cause(u.ctx)
		case <-a.kubelet.Registered(): // what the API says before is of an earlier run
		}
	}
	for !u.nodesReady() {
		select {
		case <-u.ctx.Done():
			return context.Cause(u.ctx)
		case <-changed:
		}
	}
	return u.board.Wait(u.ctx, u.converged)
}

func (u *instanceRun) nodesReady() bool {
	snapshot := u.builder.Current()
	for _, a := range u.agents {
		if api := snapshot.NodeNamed(a.node.Name); a.condition() == whole && (api == nil || !api.Ready) {
			return false
		}
	}
	return true
}

// converged reports whether every component of every node has applied something without an error. What belongs to no
// node, such as addresses that cannot be given, holds up nobody.
func (u *instanceRun) converged(entries []status.Entry) bool {
	seen := map[string]bool{}
	for _, e := range entries {
		if e.Node == "" || u.outOfReach(e.Node) {
			continue
		}
		if e.Applied == 0 || e.Error != "" {
			return false
		}
		seen[e.Node] = true
	}
	for _, a := range u.agents {
		if !seen[a.node.Name] && !a.view.Frozen() {
			return false
		}
	}
	return true
}
