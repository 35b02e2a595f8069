// Package statuswriter gives Services of type LoadBalancer the addresses that package ipam decides, by writing their
// status through the API. It is the only way back from minato's plans to the API, and tells users by Events what was
// given and why not.
//
// One process of the cluster runs a Writer. It writes by server-side apply under a field manager of its own, with the
// resource version that was looked at: so it takes back what it gave and never what others gave, and a change in
// between makes it look again. A Service whose writing fails is tried again with back-off, the others go on.
//
// It decides nothing about addresses, and announces none.
package statuswriter

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"minato/internal/ipam"
	"minato/internal/model"
	"minato/internal/status"
)

// Component is the name under which a Writer reports; it belongs to no node.
const Component = "addresses"

// Source has the newest snapshot; source.Builder is one.
type Source interface {
	Current() *model.Snapshot
	Subscribe() (changed <-chan struct{}, cancel func())
}

// Config is what a Writer works with. All but the times and Recorder must be set.
type Config struct {
	Client   kubernetes.Interface
	Source   Source
	Board    *status.Board
	Log      *slog.Logger
	Recorder record.EventRecorder // nil: Events go to Client

	RetryMin, RetryMax time.Duration // back-off of one Service: 200 ms doubling to 1 min
	SeenWithin         time.Duration // how soon a write shows in a snapshot: 10 s
}

// writesPerSecond keeps a mass of new Services from crowding out everybody else at the API.
const (
	writesPerSecond = 50
	writesBurst     = 100
)

// Writer keeps the status of all Services at what is decided. New makes one; Run runs it.
type Writer struct {
	cfg   Config
	limit flowcontrol.RateLimiter
	last  *model.Snapshot // that was looked at
	// written is what this process wrote and the snapshots do not show yet.
	written map[model.ServiceName]written
	backoff map[model.ServiceName]backoff
	told    map[model.ServiceName]string // the problem that was last told of, by Service
	config  string                       // what was last told of the configuration
	settled bool                         // the last round reached all that is decided
}

type written struct {
	addrs []netip.Addr
	at    time.Time
}

type backoff struct {
	err   error
	delay time.Duration
	until time.Time
}

// New makes a Writer. It does nothing before Run.
func New(cfg Config) *Writer {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&cfg.RetryMin, 200*time.Millisecond)
	set(&cfg.RetryMax, time.Minute)
	set(&cfg.SeenWithin, 10*time.Second)
	return &Writer{
		cfg: cfg, limit: flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesBurst),
		written: map[model.ServiceName]written{}, backoff: map[model.ServiceName]backoff{}, told: map[model.ServiceName]string{},
	}
}

// Run writes until ctx ends, and then returns nil.
func (w *Writer) Run(ctx context.Context) error {
	defer startRecorder(ctx, w.cfg.Client, &w.cfg.Recorder)()
	changed, cancel := w.cfg.Source.Subscribe()
	defer cancel()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry.C:
			due = true
		}
		s := w.cfg.Source.Current()
		if !s.Complete {
			continue
		}
		if !due && !w.concerned(s) {
			if w.settled { // what was decided holds for this revision, too
				w.cfg.Board.Report("", Component, s.Revision, nil)
			}
			continue
		}
		if again := w.round(ctx, s); again > 0 {
			retry.Reset(again)
		}
	}
}

// concerned reports whether anything that decides about addresses has changed since the last snapshot.
func (w *Writer) concerned(s *model.Snapshot) bool {
	changes := model.Diff(w.last, s)
	first := w.last == nil
	w.last = s
	return first || changes.Nodes || changes.LoadBalancing ||
		slices.ContainsFunc(changes.Services, func(c model.ServiceChange) bool { return !ipam.Same(c.Old, c.New) })
}

// round writes what differs, and returns after which time to look again; 0 means when something changes.
func (w *Writer) round(ctx context.Context, s *model.Snapshot) (again time.Duration) {
	w.forget(s)
	plan := ipam.Allocate(s, w.given())
	if plan == nil {
		w.settled = false
		w.standAside(ctx, s)
		return 0
	}
	now := time.Now()
	soon := func(d time.Duration) {
		if again == 0 || d < again {
			again = max(d, time.Millisecond)
		}
	}
	for i := range plan.Decisions {
		d := &plan.Decisions[i]
		if b, failed := w.backoff[d.Service]; failed && b.until.After(now) {
			soon(b.until.Sub(now))
			continue
		}
		if err := w.decide(ctx, s, d); err != nil {
			if ctx.Err() != nil {
				return 0
			}
			soon(w.failed(d.Service, err))
			continue
		}
		delete(w.backoff, d.Service)
	}
	if len(w.written) > 0 {
		soon(w.cfg.SeenWithin) // if a write does not show by then, somebody undid it
	}
	w.tellConfig(ctx, s.LoadBalancing, plan.Warnings)
	state := w.state(s, plan)
	w.settled = state == nil
	w.cfg.Board.Report("", Component, s.Revision, state)
	return again
}

func (w *Writer) decide(ctx context.Context, s *model.Snapshot, d *ipam.Decision) error {
	if d.Changed() {
		if err := w.write(ctx, s.Service(d.Service), d); err != nil {
			return err
		}
	}
	return w.tell(ctx, d.Service, d.Problem, "AllocationFailed", "Failed to allocate IP for %q: %s", d.Service, d.Problem)
}

func (w *Writer) failed(n model.ServiceName, err error) time.Duration {
	b := w.backoff[n]
	b.err, b.delay = err, min(max(2*b.delay, w.cfg.RetryMin), w.cfg.RetryMax)
	b.until = time.Now().Add(b.delay)
	w.backoff[n] = b
	w.cfg.Log.Warn("giving a Service its addresses failed", "service", n, "again in", b.delay, "error", err)
	return b.delay
}

// forget drops what is remembered of Services that are gone, and of writes that have come back.
func (w *Writer) forget(s *model.Snapshot) {
	for n, last := range w.written {
		if svc := s.Service(n); svc == nil || slices.Equal(svc.LoadBalancerAddrs, last.addrs) || time.Since(last.at) >= w.cfg.SeenWithin {
			delete(w.written, n)
		}
	}
	for n := range w.told {
		if !ipam.Ours(s.Service(n)) {
			delete(w.told, n)
		}
	}
	for n := range w.backoff {
		if !ipam.Ours(s.Service(n)) {
			delete(w.backoff, n)
		}
	}
}

func (w *Writer) given() ipam.Given {
	g := ipam.Given{}
	for n, last := range w.written {
		g[n] = last.addrs
	}
	return g
}
