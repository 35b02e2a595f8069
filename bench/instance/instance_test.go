//go:build linux

// Package instance measures what a user waits for, and what an instance costs, on a whole instance in a world of its
// own. bench/RESULTS.md has the figures; `make bench` makes them.
//
// It compares with nothing: the peers' figures have their own programs.
package instance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"minato/test/world"
)

// took finds a step of `minato up` by its name in what it printed.
func took(b *testing.B, output, step string) time.Duration {
	b.Helper()
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(step) + `\s+(?:in )?(\S+)$`).FindStringSubmatch(output)
	if m == nil {
		b.Fatalf("no step %q in:\n%s", step, output)
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func report(b *testing.B, name string, samples []time.Duration) {
	b.Helper()
	slices.Sort(samples)
	at := func(q float64) float64 {
		return float64(samples[min(len(samples)-1, int(q*float64(len(samples))))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), name+"-p50-ms")
	b.ReportMetric(at(0.99), name+"-p99-ms")
	b.ReportMetric(0, "ns/op")
}

// restart measures up after down: the start with the state that w has.
func restart(b *testing.B, w *world.World) {
	var api, nodes []time.Duration
	for range b.N {
		down(b, w)
		start := time.Now()
		r := w.Verb("up", "--detach")
		whole := time.Since(start)
		if r.Err != nil {
			b.Fatalf("up: %v\n%s", r.Err, r.Output())
		}
		out := r.Output()
		// The steps follow each other but for containerd, which runs beside the API.
		api = append(api, whole-took(b, out, "nodes ready"))
		nodes = append(nodes, whole)
	}
	report(b, "exec-to-API", api)
	report(b, "exec-to-nodes", nodes)
}

func down(b *testing.B, w *world.World) {
	b.Helper()
	if r := w.Verb("down"); r.Err != nil {
		b.Fatalf("down: %v\n%s", r.Err, r.Output())
	}
}

// BenchmarkStartWithoutServices is `minato up --detach` of an instance that was made before and holds nothing.
func BenchmarkStartWithoutServices(b *testing.B) {
	restart(b, world.Start(b, world.Config{Images: []string{}}))
}

// BenchmarkStartWith1000Services is the same with 1,000 Services of ten endpoints each stored.
func BenchmarkStartWith1000Services(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{}})
	apply(b, w, services(1000, 10))
	restart(b, w)
}

// services is YAML of n selectorless Services with m endpoints each.
func services(n, m int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [{port: 80}]}\n", i)
		fmt.Fprintf(&s, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: s%d, labels: {kubernetes.io/service-name: s%d}}\nports: [{port: 80, protocol: TCP}]\nendpoints:\n", i, i)
		for j := range m {
			k := i*m + j
			fmt.Fprintf(&s, "- addresses: [10.%d.%d.%d]\n", 200+k>>16, k>>8&255, k&255)
		}
	}
	return s.String()
}

func apply(b *testing.B, w *world.World, yaml string) {
	b.Helper()
	file := filepath.Join(b.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		b.Fatal(err)
	}
	if r := w.Shell(filepath.Dir(file), "kubectl create -f "+file+" >/dev/null"); r.Err != nil {
		b.Fatalf("create: %v\n%s", r.Err, r.Output())
	}
}

// BenchmarkFirstAnswerByName is `create deployment` and `expose` to the first answer by name in a pod, image loaded.
func BenchmarkFirstAnswerByName(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{"nginx", "thr3a/debugger"}})
	w.Kubectl(b, "create", "deployment", "client", "--image=thr3a/debugger", "--", "sleep", "infinity")
	w.Kubectl(b, "rollout", "status", "deployment/client", "--timeout=60s")
	var all []time.Duration
	for i := range b.N {
		name := fmt.Sprintf("web%d", i)
		start := time.Now()
		w.Kubectl(b, "create", "deployment", name, "--image=nginx", "--port=80")
		w.Kubectl(b, "expose", "deployment", name)
		w.Kubectl(b, "exec", "deployment/client", "--", "sh", "-c",
			"until curl -s -o /dev/null --max-time 1 http://"+name+"; do sleep 0.02; done")
		all = append(all, time.Since(start))
		w.Kubectl(b, "delete", "deployment,service", name)
	}
	report(b, "first-answer", all)
}

// BenchmarkMemory reports the resident memory of an idle instance of three nodes, a minute after its start.
func BenchmarkMemory(b *testing.B) {
	w := world.Start(b, world.Config{Images: []string{"nginx"}})
	w.Kubectl(b, "create", "deployment", "web", "--image=nginx")
	w.Kubectl(b, "rollout", "status", "deployment/web", "--timeout=60s")
	for range b.N {
		time.Sleep(time.Minute) // the idle state is what is measured
		b.ReportMetric(memory(b, w, "minato\x00up"), "minato-RSS-MB")
		b.ReportMetric(memory(b, w, "containerd\x00--config"), "containerd-RSS-MB")
		b.ReportMetric(memory(b, w, "containerd-shim"), "shims-RSS-MB")
	}
	b.ReportMetric(0, "ns/op")
}

// memory sums the resident memory of the processes of an instance whose command line has what in it.
func memory(b *testing.B, w *world.World, what string) (megabytes float64) {
	b.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(line), w.Name) && !strings.Contains(string(line), w.StateDir) || !strings.Contains(string(line), what) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil {
			continue // it ended meanwhile
		}
		if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); m != nil {
			kb, err := strconv.Atoi(string(m[1]))
			if err != nil {
				b.Fatal(err)
			}
			megabytes += float64(kb) / 1024
		}
	}
	return megabytes
}
