package statuswriter

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"minato/internal/model"
)

// NoticesConfig is what Notices works with. All but the times and Recorder must be set.
type NoticesConfig struct {
	Client   kubernetes.Interface
	Source   Source
	Log      *slog.Logger
	Recorder record.EventRecorder // nil: Events go to Client

	Settle time.Duration // how long something must hold before anybody is told: 2 s
	Retry  time.Duration // how soon an error is tried again: 1 s
}

// Notices tells by Events on a Service what is wrong with it, wherever that was found: what could not be used of the
// object, which of its addresses an older Service has, and what a node says by Warn. Each is told once, until it holds
// no more. One process of the cluster runs one. NewNotices makes it; Run runs it.
type Notices struct {
	cfg   NoticesConfig
	limit flowcontrol.RateLimiter
	last  *model.Snapshot

	mu    sync.Mutex // guards known, for Warn
	known map[notice]*told
	wake  chan struct{}
}

type notice struct {
	service      model.ServiceName
	reason, text string
	node         string // that said it; empty: it is in the snapshots
}

// told is what became of a notice.
type told struct {
	since time.Time
	done  bool
}

// NewNotices makes a Notices. It does nothing before Run.
func NewNotices(cfg NoticesConfig) *Notices {
	if cfg.Settle == 0 {
		cfg.Settle = 2 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	return &Notices{
		cfg: cfg, limit: flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesBurst),
		known: map[notice]*told{}, wake: make(chan struct{}, 1),
	}
}

// Warn tells of a Service what a node found, at once, and once as long as the Service is there. It does not block.
func (n *Notices) Warn(node string, service model.ServiceName, reason, text string) {
	n.add(notice{service, reason, text, node}, time.Now().Add(-n.cfg.Settle))
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Notices) add(of notice, since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[of] == nil {
		n.known[of] = &told{since: since}
	}
}

// Run tells until ctx ends, and then returns nil.
func (n *Notices) Run(ctx context.Context) error {
	defer startRecorder(ctx, n.cfg.Client, &n.cfg.Recorder)()
	changed, cancel := n.cfg.Source.Subscribe()
	defer cancel()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-n.wake:
		case <-again.C:
		}
		if s := n.cfg.Source.Current(); s.Complete {
			n.read(s)
			if after := n.tell(ctx); after > 0 {
				again.Reset(after)
			}
		}
	}
}

// read takes over what a snapshot has. It costs the changed Services and the conflicts, which are few.
func (n *Notices) read(s *model.Snapshot) {
	now := time.Now()
	for _, c := range model.Diff(n.last, s).Services {
		if c.New == nil {
			n.forget(func(of notice) bool { return of.service == c.Name })
			continue
		}
		var warnings []string
		if c.Old != nil {
			warnings = c.Old.Warnings
		}
		if slices.Equal(warnings, c.New.Warnings) {
			continue
		}
		n.forget(func(of notice) bool {
			return of.service == c.Name && of.reason == notAsWritten && !slices.Contains(c.New.Warnings, of.text)
		})
		for _, text := range c.New.Warnings {
			n.add(notice{service: c.Name, reason: notAsWritten, text: text}, now)
		}
	}
	if n.last == nil || !slices.Equal(n.last.Conflicts(), s.Conflicts()) {
		n.readConflicts(s.Conflicts(), now)
	}
	n.last = s
}

// The reasons of Events about what is in the snapshots.
const (
	notAsWritten = "NotAsWritten"
	addressTaken = "AddressTaken"
)

func (n *Notices) readConflicts(conflicts []model.Conflict, now time.Time) {
	holds := map[notice]bool{}
	for _, c := range conflicts {
		of := notice{service: c.Loser, reason: addressTaken, text: fmt.Sprintf(
			"give this Service or Service %s another address: %s/%s is the other's, which is older, and nothing of it comes here", c.Winner, c.Addr, c.Protocol)}
		holds[of] = true
		n.add(of, now)
	}
	n.forget(func(of notice) bool { return of.reason == addressTaken && !holds[of] })
}

func (n *Notices) forget(gone func(notice) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for of := range n.known {
		if gone(of) {
			delete(n.known, of)
		}
	}
}

// tell sends what is due, and returns after which time to look again; 0 means when something changes.
func (n *Notices) tell(ctx context.Context) (again time.Duration) {
	for of, state := range n.due(&again) {
		if err := n.send(ctx, of); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			n.cfg.Log.Warn("an Event was not sent, and is tried again", "service", of.service, "error", err)
			return n.cfg.Retry
		}
		state.done = true
	}
	return again
}

// due are the notices that have held long enough; again is when the next one will have.
func (n *Notices) due(again *time.Duration) map[notice]*told {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, all := time.Now(), map[notice]*told{}
	for of, state := range n.known {
		if left := n.cfg.Settle - now.Sub(state.since); state.done {
			continue
		} else if left > 0 {
			*again = sooner(*again, left)
		} else {
			all[of] = state
		}
	}
	return all
}

// send makes the Event. It is about the object that is there now: describe shows only those with its UID.
func (n *Notices) send(ctx context.Context, of notice) error {
	if err := n.limit.Wait(ctx); err != nil {
		return fmt.Errorf("waiting for a turn at the API: %w", err)
	}
	api, err := n.cfg.Client.CoreV1().Services(of.service.Namespace).Get(ctx, of.service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading Service %s: %w", of.service, err)
	}
	n.cfg.Recorder.Event(api, corev1.EventTypeWarning, of.reason, of.text)
	return nil
}
