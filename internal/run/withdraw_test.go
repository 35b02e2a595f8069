package run

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"minato/internal/model"
	"minato/internal/status"
)

// feed is a source of snapshots that a test changes.
type feed struct {
	current *model.Snapshot
	changed chan struct{}
}

func (f *feed) Current() *model.Snapshot             { return f.current }
func (f *feed) Subscribe() (<-chan struct{}, func()) { return f.changed, func() {} }

func (f *feed) publish(b model.Backend) {
	b.Addr, b.Target = netip.MustParseAddrPort("10.244.1.1:80"), "shop/web-1"
	svc := &model.Service{Name: model.ServiceName{Namespace: "shop", Name: "web"}, Slices: []*model.BackendSlice{{Backends: []model.Backend{b}}}}
	f.current = f.current.With(func(e *model.Edit) { e.SetService(svc) })
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func newFeed() *feed { return &feed{current: model.Empty(), changed: make(chan struct{}, 1)} }

func TestAPodThatNobodySelectsDoesNotWait(t *testing.T) {
	f := newFeed()
	f.publish(model.Backend{Ready: true})
	if err := withdrawn(t.Context(), f, new(status.Board), new(instanceRun).applied, "shop", "batch-1"); err != nil {
		t.Error(err)
	}
	if err := withdrawn(t.Context(), f, new(status.Board), new(instanceRun).applied, "other", "web-1"); err != nil {
		t.Error(err)
	}
}

func TestAStopWaitsForEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, board := newFeed(), new(status.Board)
		f.publish(model.Backend{Ready: true, Serving: true})
		board.Report("node1", "nftables", 1, nil)
		board.Report("node2", "nftables", 1, nil)
		done := make(chan error, 1)
		go func() { done <- withdrawn(t.Context(), f, board, new(instanceRun).applied, "shop", "web-1") }()
		waits := func(why string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("did not wait %s: %v", why, err)
			default:
			}
		}
		waits("for the endpoint to terminate")
		f.publish(model.Backend{Serving: true, Terminating: true})
		waits("for the nodes")
		board.Report("node1", "nftables", f.current.Revision, nil)
		waits("for the second node")
		board.Report("node2", "nftables", f.current.Revision, nil)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAStopGivesUpWhenItsTimeIsOver(t *testing.T) {
	f := newFeed()
	f.publish(model.Backend{Ready: true, Serving: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := withdrawn(ctx, f, new(status.Board), new(instanceRun).applied, "shop", "web-1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyIsSettledBeforeEveryNodeHasAppliedSomething(t *testing.T) {
	board := new(status.Board)
	board.Report("", "addresses", 3, nil)
	board.Report("node1", "nftables", 1, nil)
	is := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return board.Wait(ctx, appliedBy(2)) == nil
	}
	if is() {
		t.Error("settled with one of two nodes")
	}
	board.Report("node2", "nftables", 1, errors.New("one Service is wrong"))
	if !is() {
		t.Error("not settled with both nodes")
	}
}
