package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBoardSaysWhatWasReachedAndSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Board
		start := time.Now()
		steps := []struct {
			revision uint64
			err      error
			want     string
		}{
			{1, nil, "applied 1 of 1, since 0s, 0 failures, error \"\""},
			{1, nil, "applied 1 of 1, since 0s, 0 failures, error \"\""},
			{2, errors.New("no"), "applied 1 of 2, since 2s, 1 failures, error \"no\""},
			{3, errors.New("still no"), "applied 1 of 3, since 2s, 2 failures, error \"still no\""},
			{3, nil, "applied 3 of 3, since 4s, 0 failures, error \"\""},
		}
		for i, s := range steps {
			b.Report("node1", "dns", s.revision, s.err)
			e := b.Entries()[0]
			got := fmt.Sprintf("applied %d of %d, since %s, %d failures, error %q", e.Applied, e.Seen, e.Since.Sub(start), e.Failures, e.Error)
			if got != s.want {
				t.Errorf("step %d: %s, want %s", i, got, s.want)
			}
			if e.Converged() != (s.err == nil) {
				t.Errorf("step %d: converged %t", i, e.Converged())
			}
			time.Sleep(time.Second)
		}
	})
}

func TestBoardSaysSinceWhenAComponentIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Board
		start := time.Now()
		behind := func(want string) {
			t.Helper()
			got := "no"
			if since := b.Entries()[0].BehindSince; !since.IsZero() {
				got = since.Sub(start).String()
			}
			if got != want {
				t.Errorf("behind since %s, want %s", got, want)
			}
			time.Sleep(time.Second)
		}
		b.Publish(1)
		b.Report("node1", "dns", 1, nil)
		behind("no")
		b.Publish(2)
		behind("1s")
		b.Publish(4)
		behind("1s")
		b.Report("node1", "dns", 3, nil)
		behind("1s")
		b.Report("node1", "dns", 4, errors.New("no"))
		behind("1s")
		b.Report("node1", "dns", 4, nil)
		behind("no")
	})
}

func TestEntriesAreSortedCopies(t *testing.T) {
	var b Board
	for _, k := range [][2]string{{"node2", "dns"}, {"node1", "nftables"}, {"node1", "dns"}} {
		b.Count(k[0], k[1], "services", 5)
	}
	b.Entries()[0].Counts["services"] = 7
	got, err := json.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	entry := `{"node":%q,"component":%q,"applied":0,"seen":0,"since":"0001-01-01T00:00:00Z","counts":{"services":5}}`
	want := "[" + fmt.Sprintf(entry, "node1", "dns") + "," + fmt.Sprintf(entry, "node1", "nftables") + "," + fmt.Sprintf(entry, "node2", "dns") + "]"
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b.Forget("node1")
	if e := b.Entries(); len(e) != 1 || e[0].Node != "node2" {
		t.Errorf("after Forget: %v", e)
	}
}

func TestWaitSeesEveryReport(t *testing.T) {
	var b Board
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, c := range []string{"dns", "nftables"} {
		b.Report("node1", c, 1, nil)
		wg.Go(func() {
			for r := range uint64(100) {
				b.Report("node1", c, r+1, nil)
			}
		})
	}
	if err := b.Wait(ctx, Reached(100)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	cancel()
	if err := b.Wait(ctx, Reached(101)); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait gave %v", err)
	}
	var empty Board
	if err := empty.Wait(ctx, Reached(0)); err == nil {
		t.Error("an empty board has reached nothing")
	}
}
