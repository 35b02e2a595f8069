//go:build linux

// Package rollout counts connections that fail while a Deployment of three replicas is rolled over, beside as many to
// one that is left alone. bench/RESULTS.md has the figures; `make bench` makes them.
//
// It measures the whole: controllers, kubelet, containers and data path. Which of them loses a connection it does not say.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"minato/internal/cluster/nodes"
	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/world"
)

const (
	sources  = 8
	rate     = 300             // new connections a second, to each of the two Deployments
	patience = 5 * time.Second // for one connection
)

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
				from          []source
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

// source is an address from which connections start.
type source struct {
	ns   netns.NS
	addr netip.Addr // invalid: the namespace has only one
}

// pods are sources inside the cluster, on all nodes.
func pods(b *testing.B, w *world.World) []source {
	b.Helper()
	w.Kubectl(b, "create", "deployment", "client", "--image=thr3a/debugger", fmt.Sprint("--replicas=", sources), "--", "sleep", "infinity")
	w.Kubectl(b, "rollout", "status", "deployment/client", "--timeout=60s")
	var all []source
	for _, name := range strings.Fields(w.Kubectl(b, "get", "pods", "-l", "app=client", "-o", "jsonpath={.items[*].metadata.name}")) {
		all = append(all, source{ns: w.PodNetns(b, "default", name)})
	}
	return all
}

// lan are sources on the network around the nodes.
func lan(b *testing.B, w *world.World) []source {
	b.Helper()
	var all []source
	for i := range sources {
		a := netip.AddrFrom4([4]byte{172, 30, 0, byte(60 + i)})
		netnstest.Run(b, w.Host, "ip", "address", "add", a.String()+"/32", "dev", nodes.HostLink(w.Name))
		all = append(all, source{w.Host, a})
	}
	return all
}

func measure(b *testing.B, w *world.World, from []source, rolled, still string) {
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	var under, control *load
	var running sync.WaitGroup
	under, control = start(ctx, &running, from, rolled), start(ctx, &running, from, still)
	for range b.N {
		w.Kubectl(b, "rollout", "restart", "deployment/rolled")
		w.Kubectl(b, "rollout", "status", "deployment/rolled", "--timeout=120s")
	}
	stop()
	running.Wait()
	under.report(b, "rolled")
	control.report(b, "control")
	b.ReportMetric(0, "ns/op")
}

// load is what became of the connections to one address.
type load struct {
	begun  time.Time
	mu     sync.Mutex
	took   []time.Duration
	failed []error
}

// start opens connections from all sources by turns at the rate, until ctx ends.
func start(ctx context.Context, running *sync.WaitGroup, from []source, address string) *load {
	l := &load{begun: time.Now()}
	running.Go(func() {
		for i := 0; ; i++ {
			// By the clock, so that a busy moment makes up for what it has missed.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(l.begun.Add(time.Duration(i) * time.Second / rate))):
			}
			s := from[i%len(from)]
			running.Go(func() {
				started := time.Now()
				err := s.get(address)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.took = append(l.took, time.Since(started))
				if err != nil {
					l.failed = append(l.failed, fmt.Errorf("%s, after %v: %w", started.Format("05.000"), time.Since(started).Round(time.Millisecond), err))
				}
			})
		}
	})
	return l
}

// get fetches a page by a connection of its own.
func (s source) get(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var dialer net.Dialer
	if s.addr.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: s.addr.AsSlice()}
	}
	var conn net.Conn
	err := s.ns.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = errors.New("not a page: " + string(answer[:min(len(answer), 40)]))
	}
	return err
}

func (l *load) report(b *testing.B, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.took) == 0 {
		b.Fatal("no connection was made")
	}
	slices.Sort(l.took)
	b.ReportMetric(float64(len(l.took)), name+"-connections")
	b.ReportMetric(float64(len(l.took))/time.Since(l.begun).Seconds(), name+"-connections/s")
	b.ReportMetric(float64(len(l.failed)), name+"-failed")
	b.ReportMetric(float64(l.took[len(l.took)*99/100].Microseconds())/1000, name+"-p99-ms")
	for _, err := range l.failed[:min(len(l.failed), 10)] {
		b.Logf("%s: %v", name, err)
	}
}
