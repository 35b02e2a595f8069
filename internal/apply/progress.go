package apply

import (
	"sync"
	"time"
)

// Progress says whether a Loop keeps up. The zero value is ready; it is safe for concurrent use. Of a Loop which is
// stuck, in the kernel or after errors, it tells since when.
type Progress struct {
	mu      sync.Mutex
	waiting time.Time
	reached time.Time
	queued  time.Time
}

// Read tells since when something waits to be applied (zero: nothing does), and when all was applied last (zero: not
// once). Services that the kernel refuses, one by one, count as applied: the others work.
func (p *Progress) Read() (waiting, reached time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting, p.reached
}

// Queued tells when something last came to be applied; zero: nothing did.
func (p *Progress) Queued() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting.IsZero() {
		return p.waiting
	}
	return p.queued
}

// begin tells that something waits, and reports whether nothing did before.
func (p *Progress) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.waiting.IsZero()
	if first {
		p.waiting = time.Now()
	}
	return first
}

// cancel tells that there was nothing to apply.
func (p *Progress) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = time.Time{}
}

// end tells that all was applied.
func (p *Progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued = p.waiting
	p.waiting, p.reached = time.Time{}, time.Now()
}
