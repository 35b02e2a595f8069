// Package apply takes a node to the newest snapshot, in phases whose order keeps one promise: a name never resolves
// to an address that is not programmed.
//
//	withdraw   Publishers stop naming what goes
//	program    Programmers make what is new work, and delete nothing that may still be named
//	publish    Publishers name what is new, except Services whose programming failed
//	reap       Programmers delete what is gone
//
// A Loop does this for one node: it applies a change at once, waits for a burst to come to rest, tries again after errors, and now and then
// has the kernel read again. Programs may return the Services that failed; those keep their previous records, the
// others go on.
//
// It knows no kernel, no DNS and no Kubernetes; what is reached goes to a status.Board, which nobody here reads.
package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"minato/internal/model"
	"minato/internal/status"
)

// Programmer makes addresses work: the dataplane.
type Programmer interface {
	Name() string
	// Program brings up everything of next. It may change and add; what next no longer has it leaves to Reap. A
	// Service in failed keeps what was programmed for it before. An err says that nothing can be relied on.
	Program(ctx context.Context, next *model.Snapshot) (failed map[model.ServiceName]error, err error)
	// Reap deletes what next does not have, but nothing of a Service that failed. It is called only when every
	// Publisher has taken over next.
	Reap(ctx context.Context, next *model.Snapshot) error
}

// Publisher tells clients of addresses: DNS, announcements, Ingress.
type Publisher interface {
	Name() string
	// Withdraw drops every address of every record that next does not have. A record that next has with wholly other
	// addresses may keep the old ones until Publish, so that the name is never gone in between.
	Withdraw(ctx context.Context, next *model.Snapshot) error
	// Publish takes over next. A Service that is held keeps the records which it has after Withdraw. After an error what
	// is gone is not reaped, unless the error wraps ErrWithdrawn.
	Publish(ctx context.Context, next *model.Snapshot, held func(model.ServiceName) bool) error
}

// ErrWithdrawn is wrapped by an error of Publish after which nothing is told any more of what next does not have. It
// is reported, and Publish is tried again, but nothing waits for that.
var ErrWithdrawn = errors.New("not everything new is published")

// Observer is a Programmer that can tell whether somebody else has changed the kernel; the next Program then repairs
// what differs. It is asked often, so it has to be cheap while nobody has.
type Observer interface {
	Observe(ctx context.Context) (differs bool, err error)
}

// Source has the newest snapshot; source.Builder is one.
type Source interface {
	Current() *model.Snapshot
	Subscribe() (changed <-chan struct{}, cancel func())
}

// Config is what a Loop works with. All but the times and Progress must be set; Programmers and Publishers may be empty.
type Config struct {
	Source      Source
	Node        model.Node // Name and Netns; the rest stands in until the API says it
	Programmers []Programmer
	Publishers  []Publisher
	Board       *status.Board
	Log         *slog.Logger
	Progress    *Progress // told how far the Loop is; may be nil

	// How long changes that come within Max of the last round must be quiet, and how long that may take: 1 ms, 10 ms.
	Idle, Max          time.Duration
	RetryMin, RetryMax time.Duration // back-off after errors: 100 ms doubling to 30 s
	ObserveEvery       time.Duration // 1 s
}

func (c *Config) defaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Idle, time.Millisecond)
	set(&c.Max, 10*time.Millisecond)
	set(&c.RetryMin, 100*time.Millisecond)
	set(&c.RetryMax, 30*time.Second)
	set(&c.ObserveEvery, time.Second)
	if c.Progress == nil {
		c.Progress = new(Progress)
	}
}

// heldError is how a Publisher that waits for a Programmer shows on the Board.
type heldError int

func (n heldError) Error() string {
	return fmt.Sprintf("%d Services keep their previous records until they are programmed", int(n))
}

// failedError is the Services that a Programmer could not program.
type failedError map[model.ServiceName]error

func (f failedError) Error() string {
	const shown = 3
	names := make([]model.ServiceName, 0, len(f))
	for n := range f {
		names = append(names, n)
	}
	slices.SortFunc(names, model.ServiceName.Compare)
	var parts []string
	for _, n := range names[:min(shown, len(names))] {
		parts = append(parts, fmt.Sprintf("%s: %v", n, f[n]))
	}
	if more := len(names) - shown; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more Services", more))
	}
	return strings.Join(parts, "; ")
}
