package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"minato/internal/status"
)

const (
	nodesTold     = 5 * time.Second  // after this long, and each time again, `up` says what it waits for
	nodesPatience = 2 * time.Minute  // until nodes are Ready; then `up` has failed
	errorPatience = 30 * time.Second // until components of nodes that are Ready have no errors; then `up` goes on and says so
)

// errSlow ends the waiting for nodes.
var errSlow = errors.New("not ready in time")

// waitForNodes waits until every node is Ready in the API and its data path has reached what the API says. An error that
// lasts on a node that is Ready is told and does not hold up the rest: other Services are served.
func (u *instanceRun) waitForNodes() error {
	stop := u.tellEach(nodesTold)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(u.ctx, nodesPatience, errSlow)
	defer cancel()
	if err := u.waitForReady(ctx); err != nil {
		if errors.Is(err, errSlow) {
			return fmt.Errorf("look at %s, or at `minato doctor`: after %v %w: %s", u.inst.LogFile(), nodesPatience, err, u.awaited())
		}
		return err
	}
	ctx, cancel = context.WithTimeoutCause(u.ctx, errorPatience, errSlow)
	defer cancel()
	err := u.board.Wait(ctx, u.converged)
	if err != nil && u.ctx.Err() == nil {
		u.p.say("  not everything is as it should be (minato status): %s", u.awaited())
		return nil
	}
	return err
}

// tellEach says what is waited for, until the returned function is called.
func (u *instanceRun) tellEach(period time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(u.ctx)
	done := make(chan struct{})
	go func() { // stop waits for it
		defer close(done)
		for tick := time.NewTicker(period); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				u.p.say("  waiting for %s", u.awaited())
			}
		}
	}()
	return func() { cancel(); <-done }
}

// awaited is what `up` waits for, in words: nodes that are not Ready, and components with errors or behind.
func (u *instanceRun) awaited() string {
	var all []string
	snapshot := u.builder.Current()
	for _, a := range u.agents {
		if api := snapshot.NodeNamed(a.node.Name); a.condition() == whole && (api == nil || !api.Ready) {
			all = append(all, "node "+a.node.Name+" to be Ready")
		}
	}
	for _, e := range u.board.Entries() {
		switch {
		case e.Node == "" || u.outOfReach(e.Node):
		case e.Error != "":
			all = append(all, fmt.Sprintf("%s of node %s: %s", e.Component, e.Node, e.Error))
		case e.Applied == 0:
			all = append(all, fmt.Sprintf("%s of node %s", e.Component, e.Node))
		}
	}
	if len(all) == 0 {
		return "the data path"
	}
	return strings.Join(all, "; ")
}

// waitForReady waits until every node is Ready in the API.
func (u *instanceRun) waitForReady(ctx context.Context) error {
	changed, cancel := u.builder.Subscribe()
	defer cancel()
	for _, a := range u.agents {
		if a.condition() != whole {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.kubelet.Registered(): // what the API says before is of an earlier run
		}
	}
	for !u.nodesReady() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
	return nil
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
