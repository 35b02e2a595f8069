package fakecri

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// CrashAt has the caller die at the n-th boundary from the first: before or after the work of some call, of this runtime
// or of the API (see Boundary). Then crash is called, and until Revive every call fails without having done anything:
// a process that was killed makes none. crash must not call the runtime.
func (r *Runtime) CrashAt(n int, crash func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.crashAt, r.crash = n, crash
}

// Revive ends the death of the caller.
func (r *Runtime) Revive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = false
}

// Boundaries counts the boundaries that were passed.
func (r *Runtime) Boundaries() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boundaries
}

// Boundary passes a boundary between two calls of others than this runtime, and fails if the caller is dead.
func (r *Runtime) Boundary() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.boundary()
}

func (r *Runtime) boundary() error {
	if !r.dead {
		r.boundaries++
		if r.boundaries == r.crashAt {
			r.dead = true
			r.crash()
		}
	}
	if r.dead {
		return status.Error(codes.Canceled, "the caller is dead")
	}
	return nil
}
