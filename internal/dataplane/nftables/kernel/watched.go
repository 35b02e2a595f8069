//go:build linux

package kernel

import (
	"errors"
	"time"

	"minato/internal/nfnl"
)

const (
	// compareEvery is after how long the tables are compared even though nobody has touched them.
	compareEvery = 30 * time.Minute
	// restFactor keeps comparing below a twentieth of the time, however often others change tables of theirs.
	restFactor = 20
)

// watched knows the generation of the ruleset at which kernel and State are equal, so that the generation tells
// whether anybody else has committed anything since, to whichever table.
type watched struct {
	Kernel
	known      bool
	generation uint32
	at         time.Time     // of the last comparison
	took       time.Duration // it
}

// Commit commits, on the condition that nobody else has in the meantime. If somebody has, that is remembered, and the
// batch is committed all the same.
func (w *watched) Commit(b *nfnl.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	b.Expect(0)
	if w.known {
		b.Expect(w.generation)
	}
	err := w.Kernel.Commit(b)
	if w.known && errors.Is(err, nfnl.ErrOtherGeneration) {
		w.known = false
		b.Expect(0)
		err = w.Kernel.Commit(b)
	}
	var refusal *nfnl.Error
	switch {
	case err == nil:
		return w.follow()
	case !errors.As(err, &refusal):
		w.known = false
	}
	return err
}

// follow notes the generation after a commit of our own. One that changed nothing has not moved it.
func (w *watched) follow() error {
	if !w.known {
		return nil
	}
	g, err := w.Generation()
	w.known = err == nil && (g == w.generation || g == w.generation+1)
	w.generation = g
	return nil // the commit itself succeeded
}

// begin notes the generation before the kernel is read; end tells that State is equal to what was read.
func (w *watched) begin() error {
	g, err := w.Generation()
	w.known, w.generation = err == nil, g
	return err
}

func (w *watched) end(start time.Time) error {
	w.at, w.took = time.Now(), time.Since(start)
	alone, err := w.alone()
	w.known = alone
	return err
}

// alone reports whether nobody else has changed anything.
func (w *watched) alone() (bool, error) {
	if !w.known {
		return false, nil
	}
	g, err := w.Generation()
	return err == nil && g == w.generation, err
}

// due reports whether the tables are to be compared: because somebody else has changed something, or it is time.
func (w *watched) due() (bool, error) {
	since := time.Since(w.at)
	if since < restFactor*w.took {
		return false, nil
	}
	alone, err := w.alone()
	return err == nil && (!alone || since > compareEvery), err
}
