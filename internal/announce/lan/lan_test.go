package lan_test

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/announce/lan"
	"minato/internal/announce/lan/lantest"
	"minato/internal/model"
)

var (
	asker  = lan.MAC{2, 0, 0, 0, 0, 9}
	vip    = netip.MustParseAddr("192.0.2.200")
	client = netip.MustParseAddr("192.0.2.1")
)

// start runs a Speaker on a fake link until the bubble's test ends.
func start(t *testing.T, open func() (lan.Wire, error)) *lan.Speaker {
	t.Helper()
	return startWith(t, lan.Config{Open: open})
}

func startWith(t *testing.T, cfg lan.Config) *lan.Speaker {
	t.Helper()
	cfg.Name, cfg.Node, cfg.Log = "test", "node1", lantest.Log(t)
	s := lan.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	synctest.Wait()
	return s
}

func on(w lan.Wire) func() (lan.Wire, error) { return func() (lan.Wire, error) { return w, nil } }

// tellings are the times after start at which everybody was told of an address.
func tellings(start time.Time, all []told, a netip.Addr) (at []time.Duration) {
	for _, x := range all {
		if x.Addr == a && x.To == lan.Everybody {
			at = append(at, x.At.Sub(start))
		}
	}
	return at
}

func TestANewAddressIsToldAtOnceThenOftenThenSlowlyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		began := time.Now()
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		ms := time.Millisecond
		want := []time.Duration{0, 1100 * ms, 2200 * ms, 3300 * ms, 4400 * ms, 34400 * ms, 64400 * ms, 94400 * ms}
		if d := cmp.Diff(want, tellings(began, w.take(), vip)); d != "" {
			t.Errorf("told at (-want +got):\n%s", d)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(tellings(began, w.take(), vip)); n != 24*60*2 {
			t.Errorf("told %d times in a day", n)
		}
	})
}

func TestAnAddressThatComesLaterHasItsOwnTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		began := time.Now()
		lantest.Apply(t, s, lantest.World(vip, "a"), lantest.Nobody)
		time.Sleep(10500 * time.Millisecond)
		lantest.Apply(t, s, lantest.World(vip, "a", "b"), lantest.Nobody)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		ms := time.Millisecond
		if d := cmp.Diff([]time.Duration{10500 * ms, 11600 * ms, 12700 * ms}, tellings(began, w.take(), vip.Next())); d != "" {
			t.Errorf("told at (-want +got):\n%s", d)
		}
	})
}

func TestQuestionsAreAnsweredForAnnouncedAddressesOnly(t *testing.T) {
	for _, tt := range []struct {
		name     string
		question lan.Question
		answer   bool
	}{
		{"who has it", lan.Question{Addr: vip, From: client, MAC: asker}, true},
		{"is it free (RFC 5227, RFC 4862)", lan.Question{Addr: vip, From: netip.IPv4Unspecified(), MAC: asker}, true},
		{"another address", lan.Question{Addr: vip.Next(), From: client, MAC: asker}, false},
		// Who announces the address itself gets no answer: two of them would never end.
		{"another machine that announces the address", lan.Question{Addr: vip, From: vip, MAC: asker}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWire()
				s := start(t, on(w))
				lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
				synctest.Wait()
				w.take()
				w.in <- tt.question
				synctest.Wait()
				var want []told
				if tt.answer {
					want = []told{{time.Now(), asker, tt.question.Addr}}
				}
				if d := cmp.Diff(want, w.take(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Errorf("said (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestAddressesOfTheOtherFamilyAreLeftToTheOtherWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire() // panics when it is told of one
		s := start(t, on(w))
		other := netip.MustParseAddr("2001:db8::200")
		lantest.Apply(t, s, lantest.World(other, "web"), lantest.Nobody)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := w.take(); len(got) > 0 || s.Announced(other) {
			t.Errorf("said %+v", got)
		}
	})
}

func TestWithdrawnIsSilentBeforePublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		synctest.Wait()
		w.take()
		if err := s.Withdraw(t.Context(), lantest.World(vip)); err != nil {
			t.Fatal(err)
		}
		w.in <- lan.Question{Addr: vip, From: client, MAC: asker}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := w.take(); len(got) > 0 {
			t.Errorf("sent %+v", got)
		}
	})
}

func TestAHeldServiceIsNotAnnouncedButStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, on(newFakeWire()))
		held := func(model.ServiceName) bool { return true }
		lantest.Apply(t, s, lantest.World(vip, "web"), held)
		if s.Announced(vip) {
			t.Error("announced before it was programmed")
		}
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		lantest.Apply(t, s, lantest.World(vip, "web"), held)
		if !s.Announced(vip) {
			t.Error("no longer announced, although what was programmed is still there")
		}
	})
}

func TestALinkThatFailsIsOpenedAgainAndToldAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, opened := newFakeWire(), 0
		s := start(t, func() (lan.Wire, error) {
			if opened++; opened > 1 {
				w = newFakeWire()
			}
			return w, nil
		})
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		time.Sleep(time.Minute) // long past the first tellings: the next is 4.4 s away
		synctest.Wait()
		w.failNext(errors.New("network is down"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if opened != 2 || len(w.take()) != 1 {
			t.Errorf("opened %d times, and not told at once", opened)
		}
	})
}

func TestPublishFailsWhileTheLinkIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		s := start(t, func() (lan.Wire, error) {
			if !there.Load() {
				return nil, lan.ErrNoLink
			}
			return newFakeWire(), nil
		})
		if err := s.Publish(t.Context(), lantest.World(vip), lantest.Nobody); err != nil {
			t.Errorf("without addresses nothing is needed of the link: %v", err)
		}
		if err := s.Publish(t.Context(), lantest.World(vip, "web"), lantest.Nobody); !errors.Is(err, lan.ErrNoLink) {
			t.Errorf("got %v", err)
		}
		there.Store(true)
		time.Sleep(10 * time.Second)
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
	})
}

func TestAMutedSpeakerSaysNothingUntilItIsToldAnewWhatToAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		synctest.Wait()
		w.take()
		s.Mute(true)
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		w.in <- lan.Question{Addr: vip, From: client, MAC: asker}
		time.Sleep(time.Hour)
		s.Mute(false)
		synctest.Wait()
		if got := w.take(); len(got) > 0 || s.Announced(vip) {
			t.Errorf("said %+v", got)
		}
		began := time.Now()
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		synctest.Wait()
		if at := tellings(began, w.take(), vip); len(at) != 1 {
			t.Errorf("told at %v", at)
		}
	})
}

func TestAChangeOfPeersIsToldToEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.take()
		began := time.Now()
		healed := lantest.World(vip, "web").WithPeers([]model.Peer{{NodeName: "node2"}})
		lantest.Apply(t, s, healed, lantest.Nobody)
		lantest.Apply(t, s, healed, lantest.Nobody)
		time.Sleep(time.Second)
		synctest.Wait()
		if at := tellings(began, w.take(), vip); len(at) != 1 || at[0] != 0 {
			t.Errorf("told at %v, want once at once", at)
		}
	})
}

func TestAClaimThatIsRepeatedIsAConflict(t *testing.T) {
	theirs := lan.Question{Addr: vip, From: vip, MAC: asker}
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		var told []string
		s := startWith(t, lan.Config{Open: on(w), Conflict: func(_ []model.ServiceName, text string) { told = append(told, text) }})
		lantest.Apply(t, s, lantest.World(vip, "web"), lantest.Nobody)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		w.take()
		began := time.Now()
		w.in <- theirs // as of a node that takes the address over
		time.Sleep(500 * time.Millisecond)
		w.in <- theirs
		synctest.Wait()
		if len(told) > 0 || s.Problem() != "" {
			t.Fatalf("told %q at once", told)
		}
		time.Sleep(time.Second)
		if at := tellings(began, w.take(), vip); len(at) != 1 || at[0] != 1100*time.Millisecond {
			t.Errorf("told everybody at %v, want once after 1.1 s", at)
		}
		for range 3 {
			w.in <- theirs
			synctest.Wait()
		}
		if len(told) != 1 || s.Problem() != told[0] {
			t.Errorf("told %q, and the problem is %q", told, s.Problem())
		}
		time.Sleep(2 * time.Minute)
		if s.Problem() != "" {
			t.Errorf("still: %s", s.Problem())
		}
	})
}
