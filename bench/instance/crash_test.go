//go:build linux

package instance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"minato/test/load"
	"minato/test/world"
)

// BenchmarkNamesAfterCrash is how long after the start of `minato up`, behind a kill -9, a question of the node is lost
// for the last time, with 200 Services of ten endpoints. Each name is asked for 200 times a second, never twice for
// the same loss: one that exists and one that does not.
func BenchmarkNamesAfterCrash(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{}})
	apply(b, w, services(200, 10))
	addr := w.Kubectl(b, "get", "service", "s199", "-o", "jsonpath={.spec.clusterIP}")
	node := load.Source{NS: w.NodeNetns("node1"), DNS: "10.96.0.10:53"}
	var last, up []time.Duration
	for range b.N {
		w.AwaitNamesOnDisk(b, "s199", "node1")
		q := &load.Questions{From: node, Names: map[string]string{"s199.default.svc.cluster.local.": addr, "other.default.svc.cluster.local.": "NXDOMAIN"}}
		ctx, cancel := context.WithCancel(b.Context())
		var asking sync.WaitGroup
		asking.Go(func() { q.Run(ctx) })
		w.Kill(b)
		start := time.Now()
		if r := w.Verb("up", "--detach"); r.Err != nil {
			b.Fatalf("up: %v\n%s", r.Err, r.Output())
		}
		up = append(up, time.Since(start))
		cancel()
		asking.Wait()
		if len(q.Lost) == 0 {
			b.Fatal("no question was lost: nothing was killed")
		}
		last = append(last, q.Lost[len(q.Lost)-1].At.Sub(start))
	}
	report(b, "last-lost", last)
	report(b, "exec-to-nodes", up)
}

// BenchmarkNamesAcrossReplace is how many of 5,000 questions a second are lost while a new process takes over: 25 names, of
// which 13 exist, each asked for 200 times a second.
func BenchmarkNamesAcrossReplace(b *testing.B) {
	const existing, others = 13, 12
	w := world.Start(b, world.Config{Images: []string{}})
	apply(b, w, services(existing, 10))
	node := load.Source{NS: w.NodeNetns("node1"), DNS: "10.96.0.10:53"}
	names := map[string]string{}
	for i := range existing {
		names[fmt.Sprintf("s%d.default.svc.cluster.local.", i)] = w.Kubectl(b, "get", "service", fmt.Sprintf("s%d", i), "-o", "jsonpath={.spec.clusterIP}")
	}
	for i := range others {
		names[fmt.Sprintf("other%d.default.svc.cluster.local.", i)] = "NXDOMAIN"
	}
	asked, lost := 0, 0
	for range b.N {
		q := &load.Questions{From: node, Names: names}
		ctx, cancel := context.WithCancel(b.Context())
		var asking sync.WaitGroup
		asking.Go(func() { q.Run(ctx) })
		for range 2 { // the one that took over hands over as well
			time.Sleep(time.Second)
			if r := w.Verb("up", "--replace", "--detach"); r.Err != nil {
				b.Fatalf("up: %v\n%s", r.Err, r.Output())
			}
		}
		time.Sleep(time.Second)
		cancel()
		asking.Wait()
		asked, lost = asked+q.Asked, lost+len(q.Lost)
		for _, l := range q.Lost[:min(len(q.Lost), 5)] {
			b.Logf("%s: %v", l.Name, l.Err)
		}
	}
	b.ReportMetric(float64(asked), "asked")
	b.ReportMetric(float64(lost), "lost")
}
