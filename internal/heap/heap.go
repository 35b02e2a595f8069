// Package heap decides how far a program's heap may grow. docs/decisions/0003-memory.md has the figures behind it.
//
// It measures nothing, and leaves alone what GOGC and GOMEMLIMIT say.
package heap

import "runtime/debug"

// GrowFreely lets the heap grow to five times what is in use, while a program starts: what is in use grows until the
// end of that, and looking through it again and again takes a good part of the time. The function it returns sets what
// is usual. Where GOGC is set, both change nothing.
func GrowFreely() (usual func()) {
	const starting, always = 400, 100
	if before := debug.SetGCPercent(starting); before != always {
		debug.SetGCPercent(before)
		return func() {}
	}
	return func() { debug.SetGCPercent(always) }
}
