//go:build linux

package walkthrough

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"minato/test/world"
)

// Deadlines for a busy machine of two cores. Nothing should come near them.
const (
	podTime = 90 * time.Second // until pods run
	netTime = 20 * time.Second // until a change has reached kernel and names
)

// pod is one as the API shows it.
type pod struct {
	Name, Node string
	IP         netip.Addr
}

// readyPods waits until a selector has n pods, all ready. Each must run by the word of the container runtime, too.
func readyPods(t *testing.T, w *world.World, namespace, selector string, n int) []pod {
	t.Helper()
	world.Eventually(t, podTime, func() error {
		out := w.Kubectl(t, "get", "pods", "-n", namespace, "-l", selector, "--no-headers")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != n {
			return fmt.Errorf("%d pods of %s, want %d:\n%s", len(lines), selector, n, out)
		}
		for _, l := range lines {
			if f := strings.Fields(l); len(f) < 3 || f[2] != "Running" || !allReady(f[1]) {
				return fmt.Errorf("pods of %s are not all ready:\n%s", selector, out)
			}
		}
		return nil
	})
	out := w.Kubectl(t, "get", "pods", "-n", namespace, "-l", selector, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}{"\n"}{end}`)
	sandboxes := w.Sandboxes(t)
	var all []pod
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Fatalf("a pod of %s lacks a node or an address:\n%s", selector, out)
		}
		ip, err := netip.ParseAddr(f[2])
		if err != nil {
			t.Fatalf("address of pod %s: %v", f[0], err)
		}
		if !slices.Contains(sandboxes, namespace+"/"+f[0]) {
			t.Errorf("the container runtime does not run pod %s/%s, only %q", namespace, f[0], sandboxes)
		}
		all = append(all, pod{f[0], f[1], ip})
	}
	return all
}

// allReady reads "2/2".
func allReady(column string) bool {
	ready, all, ok := strings.Cut(column, "/")
	return ok && ready == all
}

func podNames(all []pod) []string {
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// sayWho lets the web server of every pod answer /who with the pod's name.
func sayWho(t *testing.T, w *world.World, namespace, container string, all []pod) {
	t.Helper()
	for _, p := range all {
		args := []string{"exec", "-n", namespace, p.Name}
		if container != "" {
			args = append(args, "-c", container)
		}
		w.Kubectl(t, append(args, "--", "cp", "/etc/hostname", "/usr/share/nginx/html/who")...)
	}
}

// wantRow fails unless one line of a table matches the columns, each a pattern of its own.
func wantRow(t *testing.T, table string, columns ...string) {
	t.Helper()
	re := regexp.MustCompile(`(?m)^` + strings.Join(columns, `\s+`) + `\s*$`)
	if !re.MatchString(table) {
		t.Errorf("no row like %q in:\n%s", columns, table)
	}
}

// wantText fails unless the text has every one of the parts.
func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in:\n%s", p, text)
		}
	}
}

// wantAll asks until every pod has answered with its name, and fails at once if anybody else does.
func wantAll(t *testing.T, all []pod, ask func() world.Result) {
	t.Helper()
	answered := map[string]bool{}
	world.Eventually(t, netTime, func() error {
		r := ask()
		name := strings.TrimSpace(r.Stdout)
		if !slices.Contains(podNames(all), name) {
			return fmt.Errorf("the answer is %q (%v), want the name of a pod", r.Output(), r.Err)
		}
		if answered[name] = true; len(answered) < len(all) {
			return fmt.Errorf("only %v answer", answered)
		}
		return nil
	})
}

// clusterIP is the address of a Service.
func clusterIP(t *testing.T, w *world.World, namespace, name string) string {
	t.Helper()
	ip := w.Kubectl(t, "get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
	if _, err := netip.ParseAddr(ip); err != nil {
		t.Fatalf("ClusterIP of %s: %v", name, err)
	}
	return ip
}

// lookedUp are the addresses that an nslookup prints, sorted, without the first, which is the server's.
func lookedUp(output string) []string {
	var addrs []string
	for _, m := range regexp.MustCompile(`(?m)^Address(?: \d+)?:\s*\[?([0-9a-f.:]+)`).FindAllStringSubmatch(output, -1) {
		addrs = append(addrs, m[1])
	}
	if len(addrs) > 0 {
		addrs = addrs[1:]
	}
	slices.Sort(addrs)
	return addrs
}

func podIPs(all []pod) []string {
	var ips []string
	for _, p := range all {
		ips = append(ips, p.IP.String())
	}
	slices.Sort(ips)
	return ips
}
