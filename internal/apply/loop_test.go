package apply

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"minato/internal/model"
)

// running starts a Loop in the synctest bubble. stop ends it and waits; the bubble itself fails the test when a
// goroutine is left.
func running(t *testing.T, src *fakeSource, programs fault, edits ...func(*Config)) (p *fakeProgrammer, stop func()) {
	t.Helper()
	l, p, _ := newLoop(src, newUniverse(t.Fatalf), programs, never)
	for _, edit := range edits {
		edit(&l.cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	synctest.Wait()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	}
}

func TestNothingIsProgrammedBeforeTheFirstCompleteSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		p, stop := running(t, src, never)
		defer stop()
		src.update(func(e *model.Edit) { e.SetService(svc("a", 1)) })
		time.Sleep(2 * time.Minute) // past an observation, too
		synctest.Wait()
		if got, _ := p.seen(); len(got) > 0 {
			t.Fatalf("programmed %v", got)
		}
		src.update((*model.Edit).SetComplete)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got, _ := p.seen(); !slices.Equal(got, []uint64{2}) {
			t.Errorf("programmed %v, want only revision 2", got)
		}
	})
}

func TestChangesThatComeCloseTogetherAreOneRound(t *testing.T) {
	for _, c := range []struct {
		name  string
		gap   time.Duration
		count int
		want  int // rounds
	}{
		{"a burst, of which the first does not wait", 100 * time.Microsecond, 50, 2},
		{"changes that never rest are applied every 10 ms", 500 * time.Microsecond, 100, 6},
		{"changes with rests between are applied one by one", 5 * time.Millisecond, 7, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFakeSource()
				p, stop := running(t, src, never)
				defer stop()
				for range c.count {
					src.update((*model.Edit).SetComplete)
					time.Sleep(c.gap)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				rounds, _ := p.seen()
				if len(rounds) != c.want {
					t.Errorf("%d rounds, want %d", len(rounds), c.want)
				}
				if last := rounds[len(rounds)-1]; last != uint64(c.count) {
					t.Errorf("the last round was for revision %d of %d", last, c.count)
				}
			})
		})
	}
}

func TestAChangeAfterRestIsAppliedAtOnceAndTheNextAfterOneQuietMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		p, stop := running(t, src, never)
		defer stop()
		applied := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			if got, _ := p.seen(); len(got) != want {
				t.Fatalf("%s: %d rounds, want %d", when, len(got), want)
			}
		}
		src.update((*model.Edit).SetComplete)
		applied(1, "after the first change")
		src.update((*model.Edit).SetComplete)
		time.Sleep(time.Millisecond - time.Nanosecond)
		applied(1, "just before the second has rested")
		time.Sleep(time.Nanosecond)
		applied(2, "when it has")
	})
}

func TestErrorsAreTriedAgainWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		at := make(chan time.Duration, 100)
		start := time.Now()
		_, stop := running(t, src, func(step string) bool {
			if step == "program all" {
				at <- time.Since(start).Round(10 * time.Millisecond)
			}
			return true
		})
		defer stop()
		src.update(func(e *model.Edit) { e.SetComplete(); e.SetService(svc("a", 1)) })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		var got []time.Duration
		for len(at) > 0 {
			got = append(got, <-at)
		}
		want := []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond,
			3100 * time.Millisecond, 6300 * time.Millisecond, 12700 * time.Millisecond, 25500 * time.Millisecond,
			51100 * time.Millisecond, 81100 * time.Millisecond, 111100 * time.Millisecond}
		if !slices.Equal(got, want) {
			t.Fatalf("attempts at %v, want %v", got, want)
		}
		src.update(func(e *model.Edit) { e.SetService(svc("a", 2)) })
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if len(at) != 1 {
			t.Error("a change waits for the back-off")
		}
	})
}

func TestBackOffStartsAnewAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		var fail atomic.Bool
		fail.Store(true)
		p, stop := running(t, src, func(step string) bool { return fail.Load() && step == "program all" })
		defer stop()
		src.update(func(e *model.Edit) { e.SetComplete(); e.SetService(svc("a", 1)) })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		fail.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		fail.Store(true)
		before, _ := p.seen()
		src.update(func(e *model.Edit) { e.SetService(svc("a", 2)) })
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		after, _ := p.seen()
		if got := len(after) - len(before); got != 2 {
			t.Errorf("%d attempts within 150 ms of the change, want the first and one again", got)
		}
	})
}

func TestTheKernelIsLookedAtEverySecondAndRepairedIfItDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		p, stop := running(t, src, never)
		defer stop()
		src.update((*model.Edit).SetComplete)
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if attempts, observed := p.seen(); observed != 10 || len(attempts) != 1 {
			t.Errorf("observed %d times, programmed %d times; want 10 and 1", observed, len(attempts))
		}
		p.mu.Lock()
		p.differs = 1
		p.mu.Unlock()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if attempts, _ := p.seen(); len(attempts) != 2 {
			t.Errorf("programmed %d times after a difference, want one more", len(attempts))
		}
	})
}

func TestProgressTellsSinceWhenTheLoopIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeSource()
		var fail atomic.Bool
		progress := new(Progress)
		p, stop := running(t, src, func(step string) bool { return fail.Load() && step == "program all" },
			func(c *Config) { c.Progress = progress })
		defer stop()
		since := func() (waiting, reached time.Duration) {
			synctest.Wait()
			w, r := progress.Read()
			if !w.IsZero() {
				waiting = time.Since(w)
			}
			return waiting, time.Since(r)
		}
		src.update(func(e *model.Edit) { e.SetComplete(); e.SetService(svc("a", 1)) })
		time.Sleep(10 * time.Second)
		if w, r := since(); w != 0 || r > 10*time.Second {
			t.Errorf("all is applied: waiting for %s, reached %s ago", w, r)
		}
		fail.Store(true)
		src.update(func(e *model.Edit) { e.SetService(svc("a", 2)) })
		time.Sleep(time.Minute)
		if w, _ := since(); w != time.Minute {
			t.Errorf("programming fails: waiting for %s, want since the change", w)
		}
		fail.Store(false)
		time.Sleep(30 * time.Second)
		if w, _ := since(); w != 0 {
			t.Errorf("programming works again: waiting for %s", w)
		}
		stuck := make(chan struct{})
		p.mu.Lock()
		p.stuck = stuck
		p.mu.Unlock()
		time.Sleep(time.Minute)
		if w, _ := since(); w < 59*time.Second {
			t.Errorf("the kernel does not answer: waiting for %s, want about a minute", w)
		}
		close(stuck)
	})
}

func TestTheNodeIsTheAPIsOnceItKnowsIt(t *testing.T) {
	v := view{base: model.Node{Name: "node1", Netns: "/run/netns/node1"}, node: &model.Node{Name: "node1", Netns: "/run/netns/node1"}}
	s := complete()
	if n := v.of(s).Node; n.Netns == "" || n.Ready {
		t.Errorf("before: %+v", n)
	}
	s = s.With(func(e *model.Edit) { e.SetNode(&model.Node{Name: "node1", Zone: "a", Ready: true}) })
	n := v.of(s).Node
	if n.Netns != "/run/netns/node1" || n.Zone != "a" || !n.Ready {
		t.Errorf("then: %+v", n)
	}
	if s = s.With(func(e *model.Edit) { e.SetService(svc("a", 1)) }); v.of(s).Node != n {
		t.Error("an unchanged node has another pointer, which makes every plan new")
	}
	if s = s.With(func(e *model.Edit) { e.DeleteNode("node1") }); v.of(s).Node != n {
		t.Error("a node that the API has lost is not what it was")
	}
}
