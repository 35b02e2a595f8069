// Package status is the record of what was applied: which component of which node has reached which revision.
//
// Appliers report to a Board; status, doctor and the page read it. It is the end of the flow: no plan may read it,
// since a plan is a function of a snapshot alone. It decides nothing and keeps no history but the last error.
package status

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
)

// Entry is the state of one component of one node.
type Entry struct {
	Node      string    `json:"node"`
	Component string    `json:"component"`
	Applied   uint64    `json:"applied"`         // newest revision that was reached in full
	Seen      uint64    `json:"seen"`            // newest revision that was tried
	Error     string    `json:"error,omitempty"` // of the last attempt; empty when it reached Seen
	Since     time.Time `json:"since"`           // of the present state: of the first error in a row, else of Applied
	Failures  int       `json:"failures,omitempty"`
	// BehindSince is since when Applied is older than what was published; zero when it is not.
	BehindSince time.Time      `json:"behindSince,omitzero"`
	Counts      map[string]int `json:"counts,omitempty"`
}

// Converged reports whether the last attempt reached what it tried.
func (e Entry) Converged() bool { return e.Error == "" && e.Applied == e.Seen }

// Board holds the Entries. The zero value is ready. It is safe for concurrent use.
type Board struct {
	mu      sync.Mutex
	entries map[key]*Entry
	newest  uint64        // revision that was published
	changed chan struct{} // closed and replaced by every report; nil until somebody waits
}

type key struct{ node, component string }

// Report records an attempt to apply a revision. A nil err means that it was reached.
func (b *Board) Report(node, component string, revision uint64, err error) {
	b.edit(node, component, func(e *Entry) {
		e.Seen = revision
		switch {
		case err == nil && (e.Applied != revision || e.Error != "" || e.Since.IsZero()):
			e.Applied, e.Error, e.Failures, e.Since = revision, "", 0, time.Now()
		case err != nil:
			if e.Error == "" {
				e.Since = time.Now()
			}
			e.Error = err.Error()
			e.Failures++
		}
		e.judge(b.newest)
	})
}

// Publish says that there is a revision to reach. It does not end a Wait.
func (b *Board) Publish(revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.newest = revision
	for _, e := range b.entries {
		e.judge(revision)
	}
}

func (e *Entry) judge(newest uint64) {
	switch {
	case e.Applied >= newest:
		e.BehindSince = time.Time{}
	case e.BehindSince.IsZero():
		e.BehindSince = time.Now()
	}
}

// Count sets one of a component's figures, such as its number of Services or of repaired elements.
func (b *Board) Count(node, component, what string, n int) {
	b.edit(node, component, func(e *Entry) {
		if e.Counts == nil {
			e.Counts = map[string]int{}
		}
		e.Counts[what] = n
	})
}

// Forget removes all entries of a node that is no longer served.
func (b *Board) Forget(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.entries, func(k key, _ *Entry) bool { return k.node == node })
	b.announce()
}

func (b *Board) edit(node, component string, f func(*Entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries == nil {
		b.entries = map[key]*Entry{}
	}
	k := key{node, component}
	e := b.entries[k]
	if e == nil {
		e = &Entry{Node: node, Component: component}
		b.entries[k] = e
	}
	f(e)
	b.announce()
}

func (b *Board) announce() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Entries is a copy of all entries, by node and component.
func (b *Board) Entries() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list()
}

func (b *Board) list() []Entry {
	out := make([]Entry, 0, len(b.entries))
	for _, e := range b.entries {
		cp := *e
		cp.Counts = maps.Clone(e.Counts)
		out = append(out, cp)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Component, b.Component))
	})
	return out
}

// Wait waits until done says so of the entries, or ctx ends. It looks again after every report.
func (b *Board) Wait(ctx context.Context, done func([]Entry) bool) error {
	for {
		b.mu.Lock()
		entries := b.list()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		if done(entries) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reached is for Wait: every component has applied the revision or a newer one, and there are some.
func Reached(revision uint64) func([]Entry) bool {
	return func(entries []Entry) bool {
		behind := func(e Entry) bool { return e.Applied < revision }
		return len(entries) > 0 && !slices.ContainsFunc(entries, behind)
	}
}

// MarshalJSON writes the entries as a list.
func (b *Board) MarshalJSON() ([]byte, error) { return json.Marshal(b.Entries()) }
