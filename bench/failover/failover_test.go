//go:build linux

// Package failover measures for how long clients are not served when a node goes, in each way in which it can, by every
// kind of address. bench/RESULTS.md has the figures; `make bench` makes them.
//
// It counts what clients see. Which part of the way loses a probe it does not say.
package failover

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/world"
)

const (
	interval = 10 * time.Millisecond
	patience = 250 * time.Millisecond // for one probe
	watched  = 15 * time.Second       // after the node went
)

const objects = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: nginx}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, nodePort: 32080}]}
`

// BenchmarkFailover has the node that announces the Service's address go and come back, once in each way.
func BenchmarkFailover(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{"nginx", "thr3a/debugger"}})
	file := filepath.Join(b.TempDir(), "web.yaml")
	if err := os.WriteFile(file, []byte(objects), 0o600); err != nil {
		b.Fatal(err)
	}
	w.Kubectl(b, "apply", "-f", file)
	w.Kubectl(b, "rollout", "status", "daemonset/web", "--timeout=60s")
	addr := w.Kubectl(b, "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	clusterIP := w.Kubectl(b, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	victim := regexp.MustCompile(regexp.QuoteMeta(addr) + `\s+(\S+)`).FindStringSubmatch(w.Verb("show", "announcements").Stdout)[1]
	other := map[string]string{"node1": "node2", "node2": "node3", "node3": "node1"}[victim]
	w.Kubectl(b, "run", "client", "--image=thr3a/debugger", `--overrides={"spec":{"nodeName":"`+other+`"}}`, "--command", "--", "sleep", "infinity")
	w.Kubectl(b, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	pod := w.PodNetns(b, "default", "client")

	lan := netns.At(filepath.Join(netns.Dir, w.Name+"-lan"))
	forwarding := func(state string) { netnstest.Run(b, lan, "bridge", "link", "set", "dev", "p-"+victim, "state", state) }
	verb := func(verb string) {
		if r := w.Verb("node", verb, victim); r.Err != nil {
			b.Fatalf("node %s: %v\n%s", verb, r.Err, r.Output())
		}
	}
	for _, way := range []struct {
		name     string
		go_, get func()
	}{
		{"stop", func() { verb("stop") }, func() { verb("start") }},
		{"kill", func() { verb("kill") }, func() { verb("start") }},
		{"pause", func() { verb("pause-agent") }, func() { verb("start") }},
		{"partition", func() { forwarding("0") }, func() { forwarding("3") }},
	} {
		b.Run(way.name, func(b *testing.B) {
			for range b.N {
				ctx, stop := context.WithCancel(b.Context())
				var running sync.WaitGroup
				all := map[string]*probe{
					"ClusterIP":    start(ctx, &running, pod, connect(clusterIP+":80")),
					"NodePort":     start(ctx, &running, w.Host, connect("172.30.0.1"+strings.TrimPrefix(other, "node")+":32080")),
					"LoadBalancer": start(ctx, &running, w.Host, connect(addr+":80")),
					"DNS":          start(ctx, &running, pod, resolve),
				}
				time.Sleep(time.Second)
				way.go_()
				time.Sleep(watched)
				stop()
				running.Wait()
				for name, p := range all {
					b.ReportMetric(float64(p.failed), name+"-failed")
					b.ReportMetric(float64(p.asked), name+"-probes")
					b.Logf("%s: failed by second %v, at last of: %v", name, p.seconds, p.last)
					b.ReportMetric(p.until.Seconds()*1000, name+"-last-failed-ms")
				}
				way.get()
				time.Sleep(10 * time.Second) // until it announces the address again
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// probe is what became of the probes to one address. Those that failed lie between the first failure and until.
type probe struct {
	mu            sync.Mutex
	asked, failed int
	first         time.Time
	until         time.Duration // from the first failure to the end of the last
	seconds       map[int]int   // how many failed in which second after the first that was asked
	last          error
	began         time.Time
}

func start(ctx context.Context, running *sync.WaitGroup, from netns.NS, ask func(context.Context, netns.NS) error) *probe {
	p := &probe{seconds: map[int]int{}, began: time.Now()}
	running.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			running.Go(func() {
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				err := ask(ctx, from)
				p.mu.Lock()
				defer p.mu.Unlock()
				p.asked++
				if err == nil {
					return
				}
				p.failed++
				p.seconds[int(began.Sub(p.began).Seconds())]++
				p.last = err
				if p.first.IsZero() || began.Before(p.first) {
					p.first = began
				}
				p.until = max(p.until, began.Add(interval).Sub(p.first))
			})
		}
	})
	return p
}

// connect opens a connection. A server that answers has accepted it.
func connect(address string) func(context.Context, netns.NS) error {
	return func(ctx context.Context, from netns.NS) error {
		c, err := from.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func resolve(ctx context.Context, from netns.NS) error {
	c, err := from.DialContext(ctx, "udp", net.JoinHostPort("10.96.0.10", "53"))
	if err != nil {
		return err
	}
	defer c.Close()
	question := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	answer, _, err := new(dns.Client).ExchangeWithConnContext(ctx, question, &dns.Conn{Conn: c})
	if err == nil && len(answer.Answer) != 1 {
		return fmt.Errorf("%d answers", len(answer.Answer))
	}
	return err
}
