//go:build linux

package instance

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"minato/test/load"
	"minato/test/world"
)

var (
	kills = flag.Int("kills", 1, "how often each program is killed")
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments of the kills")
)

// rate is the number of new connections a second to each kind of address.
const rate = 70

const deployment = `---
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
          readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {type: NodePort, selector: {app: %[1]s}, ports: [{port: 80, nodePort: %[2]d}]}
`

// TestKillsUnderLoad kills minato, and then containerd, at random moments of a rollout. Connections go on to a
// Deployment that is left alone and to the one that is rolled.
func TestKillsUnderLoad(t *testing.T) {
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	w := world.Start(t, world.Config{Images: []string{"nginx", "thr3a/debugger"}})
	apply(t, w, fmt.Sprintf(deployment, "still", 32400)+fmt.Sprintf(deployment, "rolled", 32401))
	inside, outside := pods(t, w), []load.Source{{NS: w.Host}}
	for _, name := range []string{"still", "rolled"} {
		w.Kubectl(t, "rollout", "status", "deployment/"+name, "--timeout=60s")
	}
	before := remember(t, w)
	connections := begin(t, w, inside, outside)
	minato, containerd := w.Minato+"\x00up", "containerd\x00--config"
	for round := range *kills {
		for _, program := range []string{minato, containerd} {
			w.Kubectl(t, "rollout", "restart", "deployment/rolled")
			time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second)))) // any moment of the rollout
			kill(t, w, program)
			if program == minato {
				time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second)))) // nobody is there
				if r := w.Verb("up", "--detach"); r.Err != nil {
					t.Fatalf("up after kill %d: %v\n%s", round, r.Err, r.Output())
				}
			}
			w.Kubectl(t, "rollout", "status", "deployment/rolled", "--timeout=50s")
		}
		if after := remember(t, w); after != before {
			t.Fatalf("after round %d:\n%s\nbefore:\n%s", round, after, before)
		}
	}
	connections.end(t)
}

func apply(t *testing.T, w *world.World, yaml string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Kubectl(t, "apply", "-f", file)
}

// pods are sources inside the cluster, one on each node.
func pods(t *testing.T, w *world.World) []load.Source {
	t.Helper()
	w.Kubectl(t, "create", "deployment", "client", "--image=thr3a/debugger", "--replicas=3", "--", "sleep", "infinity")
	w.Kubectl(t, "rollout", "status", "deployment/client", "--timeout=60s")
	var all []load.Source
	for _, name := range strings.Fields(w.Kubectl(t, "get", "pods", "-l", "app=client", "-o", "jsonpath={.items[*].metadata.name}")) {
		all = append(all, load.Source{NS: w.PodNetns(t, "default", name), DNS: "10.96.0.10:53"})
	}
	return all
}

// remember is what a kill must not change: the identities of objects, and the addresses, containers and restarts of the
// pods that nobody rolls.
func remember(t *testing.T, w *world.World) string {
	t.Helper()
	objects := w.Kubectl(t, "get", "deployments,services,nodes,namespaces,configmaps,serviceaccounts", "-A", "-o",
		`jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
	pods := w.Kubectl(t, "get", "pods", "-l", "app in (still,client)", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.phase}{"\n"}{end}`)
	return objects + pods
}

// kill ends the instance's process whose command line has what in it, as the kernel ends one without memory.
func kill(t *testing.T, w *world.World, what string) {
	t.Helper()
	pids := processes(t, w, what)
	if len(pids) != 1 {
		t.Fatalf("%d processes of %q", len(pids), what)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// connections are the loads of a test.
type connections struct {
	stop     context.CancelFunc
	must     []*load.Load // none of these may fail
	may      []*load.Load // names, which nobody answers while minato is away
	expected []string     // who answers, for each of must
}

func begin(t *testing.T, w *world.World, inside, outside []load.Source) connections {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	clusterIP := func(name string) string {
		return w.Kubectl(t, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}") + ":80"
	}
	pod := w.Kubectl(t, "get", "pods", "-l", "app=still", "-o", "jsonpath={.items[0].status.podIP}") + ":80"
	return connections{
		stop: stop,
		must: []*load.Load{
			load.Start(ctx, rate, inside, clusterIP("still")), load.Start(ctx, rate, outside, "172.30.0.12:32400"), load.Start(ctx, rate, inside, pod),
			load.Start(ctx, rate, inside, clusterIP("rolled")), load.Start(ctx, rate, outside, "172.30.0.12:32401"),
		},
		expected: []string{"still", "still", "still", "rolled", "rolled"},
		may:      []*load.Load{load.Start(ctx, 20, inside, "still.default.svc.cluster.local:80")},
	}
}

func (c connections) end(t *testing.T) {
	t.Helper()
	c.stop()
	for i, l := range c.must {
		l.Wait()
		t.Logf("%s, %v", c.expected[i], l)
		if l.Connections() == 0 || len(l.Failed()) > 0 {
			t.Errorf("%s: %d of %d connections failed", l.Address, len(l.Failed()), l.Connections())
		}
		for name := range l.Answered() {
			if !strings.HasPrefix(name, c.expected[i]+"-") {
				t.Errorf("%s was answered by %q, want a pod of %s", l.Address, name, c.expected[i])
			}
		}
	}
	for _, l := range c.may {
		l.Wait()
		t.Logf("by name, %v", l)
	}
}
