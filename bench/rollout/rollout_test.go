//go:build linux

// Package rollout counts connections that fail while a Deployment of three replicas is rolled over, beside as many to
// one that is left alone. bench/RESULTS.md has the figures; `make bench` makes them.
//
// It measures the whole: controllers, kubelet, containers and data path. Which of them loses a connection it does not say.
package rollout

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minato/internal/cluster/nodes"
	"minato/internal/netns/netnstest"
	"minato/test/load"
	"minato/test/world"
)

const sources = 8

var rate = flag.Int("rate", 500, "new connections a second, to each of the two Deployments")

// lifecycles are what a container says of its start and end. Without a probe it is ready before it listens.
var lifecycles = []struct{ name, yaml string }{
	{"Probed", "readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}"},
	{"ProbedAndPreStop", "readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}\n          lifecycle: {preStop: {sleep: {seconds: 2}}}"},
}

const objects = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 3
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
        - name: nginx
          image: nginx
          command: [sh, -c, "hostname > /usr/share/nginx/html/index.html && exec nginx -g 'daemon off;'"]
          %[2]s
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {type: LoadBalancer, loadBalancerIP: %[3]s, selector: {app: %[1]s}, ports: [{port: 80, nodePort: %[4]d}]}
`

// BenchmarkRollout rolls the Deployment over b.N times, one after another, for each kind of address.
func BenchmarkRollout(b *testing.B) {
	for _, l := range lifecycles {
		b.Run(l.name, func(b *testing.B) {
			w := world.Start(b, world.Config{Images: []string{"nginx", "thr3a/debugger"}})
			deploy(b, w, "rolled", l.yaml, "172.30.0.240", 32400)
			deploy(b, w, "still", l.yaml, "172.30.0.241", 32401)
			inside, outside := pods(b, w), lan(b, w)
			for _, way := range []struct {
				name          string
				rolled, still string
				from          []load.Source
			}{
				{"ClusterIP", clusterIP(b, w, "rolled"), clusterIP(b, w, "still"), inside},
				{"NodePort", "172.30.0.12:32400", "172.30.0.12:32401", outside},
				{"LoadBalancer", "172.30.0.240:80", "172.30.0.241:80", outside},
			} {
				b.Run(way.name, func(b *testing.B) { measure(b, w, way.from, way.rolled, way.still) })
			}
		})
	}
}

func deploy(b *testing.B, w *world.World, name, lifecycle, addr string, port int) {
	b.Helper()
	file := filepath.Join(b.TempDir(), name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, objects, name, lifecycle, addr, port), 0o600); err != nil {
		b.Fatal(err)
	}
	w.Kubectl(b, "apply", "-f", file)
	w.Kubectl(b, "rollout", "status", "deployment/"+name, "--timeout=60s")
	world.Eventually(b, 20*time.Second, func() error {
		if r := w.OnLAN("curl", "-s", "-o", "/dev/null", "-m", "1", "http://"+addr); r.Err != nil {
			return fmt.Errorf("%s does not answer: %w", addr, r.Err)
		}
		return nil
	})
}

func clusterIP(b *testing.B, w *world.World, name string) string {
	b.Helper()
	return w.Kubectl(b, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}") + ":80"
}

// pods are sources inside the cluster, on all nodes.
func pods(b *testing.B, w *world.World) []load.Source {
	b.Helper()
	w.Kubectl(b, "create", "deployment", "client", "--image=thr3a/debugger", fmt.Sprint("--replicas=", sources), "--", "sleep", "infinity")
	w.Kubectl(b, "rollout", "status", "deployment/client", "--timeout=60s")
	var all []load.Source
	for _, name := range strings.Fields(w.Kubectl(b, "get", "pods", "-l", "app=client", "-o", "jsonpath={.items[*].metadata.name}")) {
		all = append(all, load.Source{NS: w.PodNetns(b, "default", name)})
	}
	return all
}

// lan are sources on the network around the nodes.
func lan(b *testing.B, w *world.World) []load.Source {
	b.Helper()
	var all []load.Source
	for i := range sources {
		a := netip.AddrFrom4([4]byte{172, 30, 0, byte(60 + i)})
		netnstest.Run(b, w.Host, "ip", "address", "add", a.String()+"/32", "dev", nodes.HostLink(w.Name))
		all = append(all, load.Source{NS: w.Host, Addr: a})
	}
	return all
}

func measure(b *testing.B, w *world.World, from []load.Source, rolled, still string) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	under, control := load.Start(ctx, *rate, from, rolled), load.Start(ctx, *rate, from, still)
	for range b.N {
		w.Kubectl(b, "rollout", "restart", "deployment/rolled")
		w.Kubectl(b, "rollout", "status", "deployment/rolled", "--timeout=120s")
	}
	stop()
	report(b, "rolled", under)
	report(b, "still", control)
	b.ReportMetric(0, "ns/op")
}

func report(b *testing.B, name string, l *load.Load) {
	l.Wait()
	if l.Connections() == 0 {
		b.Fatal("no connection was made")
	}
	for pod := range l.Answered() {
		if !strings.HasPrefix(pod, name+"-") {
			b.Errorf("%s was answered by %q", name, pod)
		}
	}
	b.ReportMetric(float64(l.Connections()), name+"-connections")
	b.ReportMetric(l.Rate(), name+"-connections/s")
	b.ReportMetric(float64(len(l.Failed())), name+"-failed")
	b.ReportMetric(float64(len(l.Answered())), name+"-pods")
	b.ReportMetric(float64(l.Quantile(0.99).Microseconds())/1000, name+"-p99-ms")
	b.Logf("%s: %v", name, l)
}
