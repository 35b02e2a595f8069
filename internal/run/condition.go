package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"minato/internal/announce/heartbeat"
	"minato/internal/cluster/nodes"
	"minato/internal/model"
	"minato/internal/netns"
	"minato/internal/status"
	"minato/internal/web"
)

// condition is what `minato node` has done to a node. It outlives the process.
type condition string

const (
	whole   condition = ""
	stopped condition = "stopped" // its pods and addresses were withdrawn, then its link went down
	killed  condition = "killed"  // its link went down
	paused  condition = "paused"  // its agent applies nothing and does not speak to others
)

// doings are the verbs of `minato node` that change a node, and what it is after them.
var doings = map[string]condition{"stop": stopped, "kill": killed, "pause-agent": paused, "start": whole}

// changePatience is how long a change of a node may take to show everywhere.
const changePatience = 30 * time.Second

// linked reports whether the node's link is up in this condition.
func (c condition) linked() bool { return c == whole || c == paused }

// loadConditions reads what the nodes were when the last run ended.
func (u *instanceRun) loadConditions() error {
	saved, err := u.inst.NodeConditions()
	u.before = map[string]condition{}
	for name, c := range saved {
		u.before[name] = condition(c)
		if c != "" {
			u.p.say("  node %s is %s (minato node start %s)", name, c, name)
		}
	}
	return err
}

// changeNode does what a verb of `minato node` says, and returns what came of it in words.
func (u *instanceRun) changeNode(ctx context.Context, verb, node string, grace time.Duration) (string, error) {
	a, err := u.agentOf(node)
	if err != nil {
		return "", err
	}
	to, known := doings[verb]
	if !known {
		return "", fmt.Errorf("stop, kill, pause-agent or start a node: there is no %q: %w", verb, web.ErrNotFound)
	}
	u.changing.Lock() // one node after the other
	defer u.changing.Unlock()
	from := a.condition()
	switch {
	case from == to && to == whole:
		return "", fmt.Errorf("stop, kill or pause it first: node %s runs", node)
	case from == to:
		return "", fmt.Errorf("bring it back first (minato node start %s): it is %s already", node, to)
	case from != whole && to != whole:
		return "", fmt.Errorf("bring it back first (minato node start %s): it is %s", node, from)
	case u.cfg.Host && to != paused && to != whole:
		return "", fmt.Errorf("stop the instance instead (minato down): node %s is this machine itself", node)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, changePatience+grace)
	defer cancel()
	switch to {
	case stopped:
		err = u.stopNode(ctx, a, grace)
	case whole:
		err = u.startNode(ctx, a, from)
	default:
		err = u.setCondition(ctx, a, to)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("node %s is %s, after %s\n", node, to.text(), time.Since(began).Round(time.Millisecond)), nil
}

func (c condition) text() string {
	switch c {
	case whole:
		return "back"
	case paused:
		return "paused: its agent applies nothing"
	}
	return string(c)
}

// setCondition puts a node into a condition, and remembers it first.
func (u *instanceRun) setCondition(ctx context.Context, a *agent, c condition) error {
	conditions := map[string]string{}
	for _, other := range u.agents {
		conditions[other.node.Name] = string(other.condition())
	}
	conditions[a.node.Name] = string(c)
	if err := u.inst.SaveNodeConditions(conditions); err != nil {
		return err
	}
	before := a.setCondition(c)
	if before.linked() == c.linked() {
		return nil
	}
	if err := u.network.SetLinked(ctx, a.node.Name, c.linked()); err != nil && !errors.Is(err, nodes.ErrHostNode) {
		return err
	}
	return nil
}

// stopNode has everybody turn away from a node before it goes.
func (u *instanceRun) stopNode(ctx context.Context, a *agent, grace time.Duration) error {
	a.kubelet.SetLeaving(true)
	err := u.turnedAway(ctx, a.node.Name)
	if err == nil {
		select { // connections that are under way
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(grace):
		}
	}
	if err != nil {
		a.kubelet.SetLeaving(false)
		return fmt.Errorf("kill it if it must go now (minato node kill %s): %w", a.node.Name, err)
	}
	return u.setCondition(ctx, a, stopped)
}

// turnedAway waits until every node that can be reached has applied a revision in which nobody is sent to the node.
func (u *instanceRun) turnedAway(ctx context.Context, node string) error {
	changed, cancel := u.builder.Subscribe()
	defer cancel()
	snapshot := u.builder.Current()
	for ; sends(snapshot, node); snapshot = u.builder.Current() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("its pods are still endpoints: %w", ctx.Err())
		case <-changed:
		}
	}
	err := u.board.Wait(ctx, u.applied(snapshot.Revision))
	if err != nil {
		return fmt.Errorf("not every node has applied revision %d: %w", snapshot.Revision, err)
	}
	return nil
}

// sends reports whether new connections or addresses may still go to a node. Endpoints which nobody judges the
// readiness of, those of Services without selector and of publishNotReadyAddresses, stay.
func sends(s *model.Snapshot, node string) bool {
	if n := s.NodeNamed(node); n != nil && n.Ready {
		return true
	}
	for svc := range s.Services() {
		if svc.Selector == "" || svc.PublishNotReady {
			continue
		}
		for b := range svc.AllBackends() {
			if b.NodeName == node && b.Ready {
				return true
			}
		}
	}
	return false
}

// startNode undoes any other condition, and waits until the node has caught up.
func (u *instanceRun) startNode(ctx context.Context, a *agent, from condition) error {
	a.kubelet.SetLeaving(false)
	if err := u.setCondition(ctx, a, whole); err != nil {
		return err
	}
	changed, cancel := a.view.Subscribe()
	defer cancel()
	for {
		if n := u.builder.Current().NodeNamed(a.node.Name); n != nil && n.Ready && !a.view.Frozen() {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("look at `minato status`: the node was %s, and is started, but not Ready yet: %w", from, ctx.Err())
		case <-changed:
		}
	}
	return u.board.Wait(ctx, u.applied(u.builder.Current().Revision))
}

// applied is for status.Board.Wait: every component of every node that can be reached has applied the revision.
func (u *instanceRun) applied(revision uint64) func([]status.Entry) bool {
	return func(entries []status.Entry) bool {
		for _, e := range entries {
			if e.Node != "" && e.Applied < revision && !u.outOfReach(e.Node) {
				return false
			}
		}
		return true
	}
}

// outOfReach reports whether the agent of a node learns nothing new.
func (u *instanceRun) outOfReach(node string) bool {
	for _, a := range u.agents {
		if a.node.Name == node {
			return a.view.Frozen()
		}
	}
	return false
}

// condition is what was done to the node.
func (a *agent) condition() condition {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.is
}

// setCondition takes effect on all parts of the node but its link.
func (a *agent) setCondition(c condition) (before condition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, a.is = a.is, c
	a.waking = before == paused && a.heart != nil // until it knows who announces what by now
	for _, s := range a.speakers {
		s.Mute(c == paused)
	}
	if a.heart != nil {
		a.heart.Pause(c == paused)
	}
	a.settle()
	return before
}

// heard takes over what heartbeats say.
func (a *agent) heard(h heartbeat.Heard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view.SetPeers(h.Peers)
	a.lost, a.waking = !h.Connected, false
	a.settle()
}

// settle opens or closes the ways to the API. The mutex is held.
func (a *agent) settle() {
	cut := a.lost || !a.is.linked()
	a.view.Freeze(cut || a.waking || a.is == paused)
	a.uplink.cut(cut)
}

// startHeart has the agents of the nodes hear each other. Whoever does not hear the host does not reach the API.
func (u *instanceRun) startHeart(a *agent) {
	if u.cfg.Host {
		return // nobody else is there
	}
	a.heart = heartbeat.New(heartbeat.Config{
		Self: heartbeat.Member{Name: a.node.Name, Addr: a.node.Addrs[0]}, Netns: a.netns, Witness: u.witness(),
		Members: func() []heartbeat.Member { return u.members(a.view.Current()) },
		Heard:   a.heard, Log: u.opt.Log.With("node", a.node.Name),
	})
	a.heart.Pause(a.is == paused)
	u.goRun("heartbeats of "+a.node.Name, a.heart.Run)
}

// startWitness lets the nodes hear the host.
func (u *instanceRun) startWitness() {
	if u.cfg.Host {
		return
	}
	heart := heartbeat.New(heartbeat.Config{
		Self: u.witness(), Members: func() []heartbeat.Member { return u.members(u.builder.Current()) }, Log: u.opt.Log,
	})
	u.goRun("heartbeats of the host", heart.Run)
}

// witness is the host. No node may have the name.
func (u *instanceRun) witness() heartbeat.Member {
	return heartbeat.Member{Name: "lan", Addr: u.cfg.HostAddrs()[0]}
}

func (u *instanceRun) members(s *model.Snapshot) (all []heartbeat.Member) {
	for _, n := range u.cfg.Nodes {
		api := s.NodeNamed(n.Name)
		all = append(all, heartbeat.Member{Name: n.Name, Addr: n.Addrs[0], Away: api != nil && !api.Ready})
	}
	return all
}

// reachable is the first node whose agent is up to date, else the first.
func (u *instanceRun) reachable() *agent {
	for _, a := range u.agents {
		if !a.view.Frozen() {
			return a
		}
	}
	return u.agents[0]
}

// words say what is not as usual with the node; empty when nothing is.
func (a *agent) words() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.is == paused:
		return "agent paused"
	case a.is != whole:
		return string(a.is)
	case a.lost:
		return "cut off"
	}
	return ""
}

// conditions is a line for each node with which something is not as usual.
func (u *instanceRun) conditions() string {
	var b strings.Builder
	for _, a := range u.agents {
		switch words := a.words(); {
		case a.condition() != whole:
			fmt.Fprintf(&b, "\n%s: %s; it learns nothing new until `minato node start %s`", a.node.Name, words, a.node.Name)
		case words != "":
			fmt.Fprintf(&b, "\n%s: %s; it does not hear the host, and learns nothing new", a.node.Name, words)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}

// dialAPI connects to the API from the namespace of a node.
func (u *instanceRun) dialAPI(ctx context.Context, from netns.NS) (net.Conn, error) {
	return from.DialContext(ctx, "tcp", net.JoinHostPort(u.advertise().String(), strconv.Itoa(int(u.cfg.APIPort))))
}
