//go:build linux

package netns_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"minato/internal/apply"
	"minato/internal/model"
	"minato/internal/netns/netnstest"
	"minato/internal/status"
)

// fixed is a source of one snapshot.
type fixed struct{ *model.Snapshot }

func (f fixed) Current() *model.Snapshot { return f.Snapshot }

func (fixed) Subscribe() (<-chan struct{}, func()) {
	now := make(chan struct{}, 1)
	now <- struct{}{}
	return now, func() {}
}

func TestWhatSomebodyDeletesIsBackWithinTwoSeconds(t *testing.T) {
	w := newWorld(t)
	w.serve(2)
	snap := model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetService(w.service("web", 1, nil, "10.244.1.2"))
	})
	board := new(status.Board)
	loop := apply.New(apply.Config{Source: fixed{snap}, Node: *w.self, Board: board, Log: slog.New(slog.DiscardHandler),
		Programmers: []apply.Programmer{w.dp}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	wait, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if err := board.Wait(wait, status.Reached(snap.Revision)); err != nil {
		t.Fatal(err)
	}
	netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
	for _, command := range []string{"nft flush map ip minato svc", "nft flush chain ip minato output", "nft delete table ip minato", "nft flush ruleset"} {
		w.run(w.node, command)
		for deadline := time.Now().Add(2 * time.Second); len(w.differences()) > 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not repaired 2 s after %s: %v", command, w.differences())
			}
		}
		netnstest.MustAsk(t, w.node, "tcp", "10.96.0.1:80")
	}
}
