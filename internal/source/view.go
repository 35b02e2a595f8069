package source

import (
	"context"
	"sync"

	"minato/internal/model"
)

// View is a Builder's snapshots as the agent of one node gets them: with the peers that this agent hears, and no newer
// ones while the node is out of the API's reach. It is safe for concurrent use.
type View struct {
	from *Builder

	mu          sync.Mutex
	frozen      bool
	base        *model.Snapshot // the Builder's that was last seen
	peers       []model.Peer
	current     *model.Snapshot // base with peers; nil when it has to be made
	subscribers map[chan struct{}]struct{}
}

// NewView makes a View that shows what the Builder does. Changes are told of while Run runs.
func NewView(from *Builder) *View {
	return &View{from: from, base: model.Empty(), subscribers: map[chan struct{}]struct{}{}}
}

// Run passes on that there is a newer snapshot, until ctx ends.
func (v *View) Run(ctx context.Context) error {
	changed, cancel := v.from.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			v.mu.Lock()
			if !v.frozen {
				v.notify()
			}
			v.mu.Unlock()
		}
	}
}

// Current is the newest snapshot that the agent may know.
func (v *View) Current() *model.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.newest()
}

// newest is Current. The mutex is held.
func (v *View) newest() *model.Snapshot {
	if base := v.from.Current(); !v.frozen && base != v.base {
		v.base, v.current = base, nil
	}
	if v.current == nil {
		v.current = v.base.WithPeers(v.peers)
	}
	return v.current
}

// SetPeers takes over what the agent hears, also while it is frozen. They are given away.
func (v *View) SetPeers(p []model.Peer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.newest()
	v.peers, v.current = p, nil
	v.notify()
}

// Freeze stops newer snapshots, or lets them pass again.
func (v *View) Freeze(frozen bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.frozen == frozen {
		return
	}
	v.newest()
	v.frozen = frozen
	if !frozen {
		v.notify()
	}
}

// Frozen reports whether newer snapshots are stopped.
func (v *View) Frozen() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.frozen
}

// Subscribe is as Builder.Subscribe.
func (v *View) Subscribe() (changed <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subscribers[c] = struct{}{}
	if v.newest().Complete {
		notify(c)
	}
	return c, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.subscribers, c)
	}
}

func (v *View) notify() {
	for c := range v.subscribers {
		notify(c)
	}
}
