package run

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"minato/internal/source"
	"minato/internal/status"
)

// TestUpSaysWhatItWaitsForAndDoesNotWaitForever has a component whose error lasts, and one whose error passes.
func TestUpSaysWhatItWaitsForAndDoesNotWaitForever(t *testing.T) {
	for name, c := range map[string]struct {
		mended time.Duration // 0 is never
		took   time.Duration
		says   []string
	}{
		"lasting": {0, errorPatience, []string{"waiting for dns of node node1: no room", "not everything is as it should be", "no room"}},
		"passing": {7 * time.Second, 7 * time.Second, []string{"waiting for dns of node node1: no room"}},
		"short":   {time.Second, time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				u := &instanceRun{p: newProgress(&out), builder: source.NewBuilder(), board: new(status.Board)}
				u.ctx, u.cancel = context.WithCancelCause(t.Context())
				u.board.Report("node1", "dns", 1, errors.New("no room"))
				if c.mended > 0 {
					time.AfterFunc(c.mended, func() { u.board.Report("node1", "dns", 1, nil) })
				}
				start := time.Now()
				if err := u.waitForNodes(); err != nil || time.Since(start) != c.took {
					t.Errorf("after %v: %v, want %v", time.Since(start), err, c.took)
				}
				for _, text := range c.says {
					if !strings.Contains(out.String(), text) {
						t.Errorf("it does not say %q but:\n%s", text, out.String())
					}
				}
				if c.says == nil && out.Len() > 0 {
					t.Errorf("it says\n%s", out.String())
				}
			})
		})
	}
}
