package run

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// patience is how long a step may take before the user is told what is waited for.
const patience = time.Second

// progress tells a person what is done and what is waited for. Its methods are safe for concurrent use.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress {
	if w == nil {
		w = io.Discard
	}
	return &progress{w: w, start: time.Now()}
}

func (p *progress) say(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", a...) // a reader that went away is no reason to stop
}

// step runs f, says how long it took, and says that it is waited for when it takes long.
func (p *progress) step(name string, f func() error) error {
	start := time.Now()
	slow := time.AfterFunc(patience, func() { p.say("  waiting for %s ...", name) })
	err := f()
	slow.Stop()
	if err == nil {
		p.say("  %-28s %s", name, time.Since(start).Round(time.Millisecond))
	}
	return err
}

func (p *progress) took() time.Duration { return time.Since(p.start).Round(10 * time.Millisecond) }
