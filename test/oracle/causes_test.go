//go:build linux

package oracle

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/model"
	"minato/internal/nfnl/nfnltest"
	"minato/internal/source"
	"minato/test/oracle/upstream"
)

// newestOnly is what the figure says differently on purpose.
const newestOnly = "of changes of one EndpointSlice that are programmed together the newest counts: the others were never to be seen"

// kubeproxy_network_programming_duration_seconds counts from the causes that kube-proxy counts from.
func TestCausesOfChangesAreThoseOfKubeProxy(t *testing.T) {
	all, err := upstream.Trackers(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	slices := map[int][]upstream.Tracked{}
	cases, excepted := 0, 0
	for i, u := range all {
		if u.Kind == upstream.ToldSlice {
			slices[u.Tracker] = append(slices[u.Tracker], u)
		}
		if u.Kind != upstream.Triggers || u.Started.IsZero() { // where upstream's test says no time, no slice does
			continue
		}
		cases++
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			for _, times := range u.Triggers {
				if len(times) > 1 {
					excepted++
				}
			}
			synctest.Test(t, func(t *testing.T) { checkCauses(t, u, slices[u.Tracker]) })
		})
	}
	if cases < 8 {
		t.Errorf("only %d cases", cases)
	}
	if excepted == 0 {
		t.Errorf("nothing of upstream is excepted because %s", newestOnly)
	}
}

// checkCauses starts an applier when upstream's tracker started, and programs 10 s later.
func checkCauses(t *testing.T, u upstream.Tracked, slices []upstream.Tracked) {
	time.Sleep(time.Until(u.Started))
	a, err := kernel.Open(kernel.Config{Kernel: nfnltest.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := completeBuilder()
	b.Update(func(batch *source.Batch) {
		for _, s := range slices {
			batch.SetService(serviceOf(s.Slice))
		}
	})
	n := &model.Node{Name: "here"}
	if _, err := a.Program(context.Background(), b.Current().On(n)); err != nil {
		t.Fatal(err)
	}
	for _, s := range slices {
		told(t, b, s)
	}
	time.Sleep(10 * time.Second)
	if _, err := a.Program(context.Background(), b.Current().On(n)); err != nil {
		t.Fatal(err)
	}
	var want time.Duration
	for _, times := range u.Triggers {
		newest := times[0]
		for _, at := range times {
			if at.After(newest) {
				newest = at
			}
		}
		want += time.Since(newest)
	}
	count, sum := programming(t, a)
	if count != len(u.Triggers) || sum != want {
		t.Errorf("%d causes, together %s ago, want %d and %s", count, sum, len(u.Triggers), want)
	}
}

// programming is how many causes were counted, and how long ago they were together.
func programming(t *testing.T, a *kernel.Applier) (count int, sum time.Duration) {
	r := prometheus.NewRegistry()
	if err := r.Register(a); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kubeproxy_network_programming_duration_seconds" {
			for _, m := range f.GetMetric() {
				count += int(m.GetHistogram().GetSampleCount())
				sum += time.Duration(m.GetHistogram().GetSampleSum() * float64(time.Second))
			}
		}
	}
	return count, sum
}
