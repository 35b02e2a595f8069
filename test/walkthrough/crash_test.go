//go:build linux

package walkthrough

import (
	"context"
	"sync"
	"testing"
	"time"

	"minato/test/load"
	"minato/test/world"
)

// Pods and rules outlive minato; the names that it knew come back before the API does. bench/instance has the time.
func TestNamesAreAnsweredAfterACrashBeforeThereIsAnAPI(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"busybox"}, Up: []string{"--nodes", "2"}})
	w.Kubectl(t, "run", "asker", "--image=busybox", "--", "sleep", "infinity")
	w.Kubectl(t, "wait", "--for=condition=Ready", "pod/asker", "--timeout=60s")
	w.Kubectl(t, "create", "service", "clusterip", "web", "--tcp=80:80")
	from := load.Source{NS: w.PodNetns(t, "default", "asker"), DNS: world.At(world.Default().DNS, 53)}
	q := &load.Questions{From: from, IPv6: world.OverIPv6(), Names: map[string]string{
		"web.default.svc.cluster.local.": clusterIP(t, w, "default", "web"), "missing.default.svc.cluster.local.": "NXDOMAIN", "www.example.com.": world.Default().Far,
	}}
	for name := range q.Names {
		world.Eventually(t, netTime, func() error { return q.Ask(name) })
	}
	w.AwaitNamesOnDisk(t, "web", "node1", "node2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() { q.Run(ctx) })
	w.Kill(t)
	started := time.Now()
	var api time.Duration // until it answers
	asking.Go(func() {
		for ctx.Err() == nil && api == 0 {
			if r := w.Verb("kubectl", "get", "--raw", "/readyz"); r.Err == nil {
				api = time.Since(started)
			}
		}
	})
	if r := w.Verb("up", "--detach"); r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, r.Output())
	}
	world.Eventually(t, netTime, func() error { return q.Ask("web.default.svc.cluster.local.") })
	cancel()
	asking.Wait()
	if len(q.Lost) == 0 {
		t.Fatal("no question was lost: nothing was killed")
	}
	last := q.Lost[len(q.Lost)-1]
	t.Logf("%d questions, %d lost, the last %v after the start; the API answered after %v", q.Asked, len(q.Lost), last.At.Sub(started), api)
	if last.At.Sub(started) > api && api > 0 {
		t.Errorf("lost when the API was there: %s", last.Err)
	}
}
