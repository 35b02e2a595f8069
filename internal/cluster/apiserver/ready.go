package apiserver

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Ready waits until /readyz is good and the system's Services are there. The error
// of an ended ctx names what it still waited for.
func (s *Server) Ready(ctx context.Context) error {
	for {
		waiting := s.Waiting(ctx)
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.done:
			return fmt.Errorf("the API ended before it was ready: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("the API waits for %s: %w", strings.Join(waiting, ", "), ctx.Err())
		}
	}
}

// Waiting names what the API waits for before it is ready: checks of /readyz, or the
// system's Services. It is empty when all is done.
func (s *Server) Waiting(ctx context.Context) []string {
	body, err := s.client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(ctx)
	if err != nil {
		if failed := failedChecks(string(body)); len(failed) > 0 {
			return failed
		}
		return []string{"its listeners"}
	}
	select {
	case <-s.systemServices:
		return nil
	default:
		return []string{"the Services kubernetes and kube-dns"}
	}
}

// failedChecks reads the lines "[-]name failed: ..." of /readyz?verbose.
func failedChecks(body string) []string {
	var names []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}
