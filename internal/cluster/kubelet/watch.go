//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

const (
	pollBusy   = 100 * time.Millisecond // for a moment after the end of a container was told of
	pollIdle   = time.Second            // as upstream's
	pollQuiet  = 10 * time.Second       // where ends are told of
	busyPeriod = time.Second
)

// watcher holds what decides when to look at the runtime next.
type watcher struct {
	mu   sync.Mutex
	busy time.Time // until then the runtime may be a moment behind what it told
	wake chan struct{}
}

func newWatcher() *watcher { return &watcher{wake: make(chan struct{}, 1)} }

func (w *watcher) expect() {
	w.mu.Lock()
	w.busy = time.Now().Add(busyPeriod)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) interval(told bool) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case time.Now().Before(w.busy):
		return pollBusy
	case told:
		return pollQuiet
	}
	return pollIdle
}

// followExits has the runtime looked at when a container ends.
func (k *Kubelet) followExits(ctx context.Context) {
	for ctx.Err() == nil {
		err := k.cfg.Exits(ctx, func(string) { k.watcher.expect() })
		if ctx.Err() != nil {
			return
		}
		k.cfg.Log.Warn("following the ends of containers", "err", err)
		k.watcher.expect() // what ended meanwhile
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// watchRuntime looks at the runtime again and again and wakes the workers of pods that have changed.
func (k *Kubelet) watchRuntime(ctx context.Context) {
	var before map[types.UID]string
	for {
		now, err := k.fingerprints(ctx)
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("looking at the runtime", "err", err)
		}
		if err == nil {
			for uid := range changed(before, now) {
				k.poke(uid)
			}
			before = now
		}
		timer := time.NewTimer(k.watcher.interval(k.cfg.Exits != nil && err == nil))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.watcher.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// changed are the pods that differ.
func changed(before, now map[types.UID]string) map[types.UID]bool {
	uids := make(map[types.UID]bool)
	for uid, state := range now {
		if before[uid] != state {
			uids[uid] = true
		}
	}
	for uid := range before {
		if _, ok := now[uid]; !ok {
			uids[uid] = true
		}
	}
	return uids
}

// fingerprints are the states of all sandboxes and containers of the node, by pod.
func (k *Kubelet) fingerprints(ctx context.Context) (map[types.UID]string, error) {
	selector := map[string]string{labelNode: k.cfg.NodeName}
	sandboxes, err := k.cfg.Runtime.ListPodSandbox(ctx, &cri.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	containers, err := k.cfg.Runtime.ListContainers(ctx, &cri.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	parts := make(map[types.UID][]string)
	add := func(labels map[string]string, part string) {
		uid := types.UID(labels[kubelettypes.KubernetesPodUIDLabel])
		parts[uid] = append(parts[uid], part)
	}
	for _, s := range sandboxes {
		add(s.Labels, s.Id+s.State.String())
	}
	for _, c := range containers {
		add(c.Labels, c.Id+c.State.String())
	}
	result := make(map[types.UID]string, len(parts))
	for uid := range maps.Keys(parts) {
		slices.Sort(parts[uid])
		result[uid] = strings.Join(parts[uid], " ")
	}
	return result, nil
}
