package arp

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/internal/model"
)

// start runs a Speaker on a fake link until the bubble's test ends.
func start(t *testing.T, open func() (wire, error)) *Speaker {
	t.Helper()
	s := newSpeaker(Config{Node: "node1", Log: testLog(t)}, open)
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

func on(w wire) func() (wire, error) { return func() (wire, error) { return w, nil } }

// tellings are the times after start at which an address was told of, each of them in both forms.
func tellings(t *testing.T, start time.Time, all []sent, a netip.Addr) (at []time.Duration) {
	t.Helper()
	var requests, replies []time.Duration
	for _, x := range all {
		switch {
		case x.p == gratuitous(request, a, own) && x.to == everybody:
			requests = append(requests, x.at.Sub(start))
		case x.p == gratuitous(reply, a, own) && x.to == everybody:
			replies = append(replies, x.at.Sub(start))
		}
	}
	if d := cmp.Diff(requests, replies); d != "" {
		t.Errorf("requests and replies differ:\n%s", d)
	}
	return requests
}

func TestANewAddressIsToldAtOnceThenOftenThenSlowlyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		began := time.Now()
		apply(t, s, world("web"), nobody)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		ms := time.Millisecond
		want := []time.Duration{0, 1100 * ms, 2200 * ms, 3300 * ms, 4400 * ms, 34400 * ms, 64400 * ms, 94400 * ms}
		if d := cmp.Diff(want, tellings(t, began, w.take(), vip)); d != "" {
			t.Errorf("told at (-want +got):\n%s", d)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(tellings(t, began, w.take(), vip)); n != 24*60*2 {
			t.Errorf("told %d times in a day", n)
		}
	})
}

func TestAnAddressThatComesLaterHasItsOwnTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		began := time.Now()
		apply(t, s, world("a"), nobody)
		time.Sleep(10500 * time.Millisecond)
		apply(t, s, world("a", "b"), nobody)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		ms := time.Millisecond
		if d := cmp.Diff([]time.Duration{10500 * ms, 11600 * ms, 12700 * ms}, tellings(t, began, w.take(), vip.Next())); d != "" {
			t.Errorf("told at (-want +got):\n%s", d)
		}
	})
}

func TestRequestsAreAnsweredForAnnouncedAddressesOnly(t *testing.T) {
	gratuitousOfOther := packet{op: request, sender: asker, senderIP: vip, target: everybody, targetIP: vip}
	probe := whoHas(vip)
	probe.senderIP = netip.IPv4Unspecified()
	reply := whoHas(vip)
	reply.op = 2
	for _, tt := range []struct {
		name   string
		in     packet
		answer bool
	}{
		{"a request", whoHas(vip), true},
		{"a probe whether the address is free (RFC 5227)", probe, true},
		{"a request for another address", whoHas(vip.Next()), false},
		{"another machine that announces the address", gratuitousOfOther, false},
		{"a reply", reply, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFakeWire()
				s := start(t, on(w))
				apply(t, s, world("web"), nobody)
				synctest.Wait()
				w.take()
				w.in <- tt.in
				synctest.Wait()
				var want []sent
				if tt.answer {
					want = []sent{{time.Now(), asker, tt.in.answer(own)}}
				}
				if d := cmp.Diff(want, w.take(), cmp.AllowUnexported(sent{}, packet{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Errorf("sent (-want +got):\n%s", d)
				}
			})
		})
	}
}

func TestWithdrawnIsSilentBeforePublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeWire()
		s := start(t, on(w))
		apply(t, s, world("web"), nobody)
		synctest.Wait()
		w.take()
		if err := s.Withdraw(t.Context(), world()); err != nil {
			t.Fatal(err)
		}
		w.in <- whoHas(vip)
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
		apply(t, s, world("web"), held)
		if s.Announced(vip) {
			t.Error("announced before it was programmed")
		}
		apply(t, s, world("web"), nobody)
		apply(t, s, world("web"), held)
		if !s.Announced(vip) {
			t.Error("no longer announced, although what was programmed is still there")
		}
	})
}

func TestALinkThatFailsIsOpenedAgainAndToldAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, opened := newFakeWire(), 0
		s := start(t, func() (wire, error) {
			if opened++; opened > 1 {
				w = newFakeWire()
			}
			return w, nil
		})
		apply(t, s, world("web"), nobody)
		time.Sleep(time.Minute) // long past the first tellings: the next is 4.4 s away
		synctest.Wait()
		w.failNext(errors.New("network is down"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if opened != 2 || len(w.take()) != 2 {
			t.Errorf("opened %d times, and not told at once", opened)
		}
	})
}

func TestPublishFailsWhileTheLinkIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		s := start(t, func() (wire, error) {
			if !there.Load() {
				return nil, errNoLink
			}
			return newFakeWire(), nil
		})
		if err := s.Publish(t.Context(), world(), nobody); err != nil {
			t.Errorf("without addresses nothing is needed of the link: %v", err)
		}
		if err := s.Publish(t.Context(), world("web"), nobody); !errors.Is(err, errNoLink) {
			t.Errorf("got %v", err)
		}
		there.Store(true)
		time.Sleep(retryMax)
		apply(t, s, world("web"), nobody)
	})
}
