//go:build linux

package kernel

import (
	"errors"

	"minato/internal/nfnl"
)

// compareEvery is after how many looks at the generation the tables are compared all the same.
const compareEvery = 30

// watched counts what the Applier itself commits, so that the generation tells whether anybody else did.
type watched struct {
	Kernel
	known   bool   // base is one at which kernel and State were equal
	base    uint32 // generation
	commits uint32 // own, since then
	looks   int    // since then
}

// Commit commits and counts. A commit of unknown outcome makes the count worthless.
func (w *watched) Commit(b *nfnl.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	err := w.Kernel.Commit(b)
	var refusal *nfnl.Error
	switch {
	case err == nil:
		w.commits++
	case !errors.As(err, &refusal):
		w.known = false
	}
	return err
}

// alone reports whether nobody else has changed anything since the last comparison.
func (w *watched) alone() (bool, error) {
	w.looks++
	if !w.known || w.looks > compareEvery {
		return false, nil
	}
	g, err := w.Generation()
	return err == nil && g.ID == w.base+w.commits, err
}

// compared records that kernel and State were equal at a generation, and that nothing was committed since.
func (w *watched) compared(generation uint32) {
	*w = watched{Kernel: w.Kernel, known: true, base: generation}
}
