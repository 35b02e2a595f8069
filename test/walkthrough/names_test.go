//go:build linux

package walkthrough

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/test/world"
)

var namesArticle = article{
	file:   "004_65a6ffa4ec8ac9e0.txt",
	sha256: "ffc2be69b530b7db0dcceb26f7fd95b6a543660b9e52044fae301dbba70524e6",
	// Commands stand in blocks of their own, after a prompt, a mark, or nothing.
	command: regexp.MustCompile(`^(?:\$ |❯ |/ # )?((?:kubectl|nslookup|cat|curl|dig) [[:ascii:]]+)$`),
}

func TestE_Names(t *testing.T) {
	w := world.Start(t, world.Config{
		Up:     []string{"--node", "ubuntu01=" + world.Default().Node(1), "--pod-cidr", podCIDR()},
		Images: []string{"nginx", "thr3a/debugger"},
	})
	w.Kubectl(t, "create", "namespace", "test")
	w.Kubectl(t, "config", "set-context", "--current", "--namespace=test")
	fromEach(t, "004-dns", namesArticle, func(t *testing.T, s *source) {
		e := exposed{w, s}
		t.Run("E1_ExposedDeploymentHasAnAddressAndAnEndpoint", e.expose)
		t.Run("E2_PodFindsTheServiceByName", e.resolve)
		t.Run("E2_OtherNamespacesNeedTheNamespaceInTheName", e.elsewhere)
		t.Run("E3_ScaledDeploymentSharesTheRequests", e.scale)
		t.Run("E4_HeadlessServiceNamesPods", e.headless)
		w.Kubectl(t, "delete", "deployment,service,pod", "--all", "--grace-period=1")
	})
}

// podCIDR is one node's, as in the article.
func podCIDR() string {
	if world.OverIPv6() {
		return "fd00:10:244::/64"
	}
	return "10.244.0.0/24"
}

// exposed are the steps of article E.
type exposed struct {
	w *world.World
	s *source
}

const (
	createNginx    = "kubectl create deploy nginx --image=nginx"
	exposeNginx    = "kubectl expose deploy nginx --port=80 --target-port=80"
	createDebugger = "kubectl create deploy debugger --image=thr3a/debugger -- sleep infinity"
	scaleNginx     = "kubectl scale deploy nginx --replicas=2"
	exposeHeadless = "kubectl expose deploy nginx --port=80 --target-port=80 --cluster-ip=None"
)

// nginx is the Service's address and its n pods.
func (e exposed) nginx(t *testing.T, n int) (string, []pod) {
	t.Helper()
	e.s.once(t, e.w, createNginx, exposeNginx)
	if n > 1 {
		e.s.once(t, e.w, scaleNginx)
	}
	return clusterIP(t, e.w, "test", "nginx"), readyPods(t, e.w, "test", "app=nginx", n)
}

// debugger opens a shell in the pod from which the article looks around.
func (e exposed) debugger(t *testing.T) *world.Terminal {
	t.Helper()
	e.s.once(t, e.w, createDebugger)
	readyPods(t, e.w, "test", "app=debugger", 1)
	term := e.w.Terminal(t, e.s.dir, "kubectl exec -it deploy/debugger -- bash")
	term.Expect(t, netTime, "# ")
	return term
}

// wantEndpoints waits until `kubectl get ep` shows port 80 of the pods and nothing else.
func (e exposed) wantEndpoints(t *testing.T, all []pod) {
	t.Helper()
	var want []string
	for _, p := range all {
		want = append(want, world.At(p.IP.String(), 80))
	}
	slices.Sort(want)
	world.Eventually(t, netTime, func() error {
		out := e.s.shell(t, e.w, "kubectl get ep nginx")
		row := regexp.MustCompile(`(?m)^nginx\s+(\S+)\s+\S+$`).FindStringSubmatch(out)
		if row == nil {
			return fmt.Errorf("no endpoints:\n%s", out)
		}
		got := strings.Split(row[1], ",")
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("endpoints (-want +got):\n%s", diff)
		}
		return nil
	})
}

func (e exposed) expose(t *testing.T) {
	ip, all := e.nginx(t, 1)
	wantRow(t, e.s.shell(t, e.w, "kubectl get svc nginx"), "nginx", "ClusterIP", regexp.QuoteMeta(ip), "<none>", "80/TCP", `\S+`)
	e.wantEndpoints(t, all)
	out := e.s.shell(t, e.w, "kubectl get pods --selector=app=nginx -o wide")
	wantRow(t, out, "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES")
	if !netip.MustParsePrefix(podCIDR()).Contains(all[0].IP) {
		t.Errorf("%s is not of the node's range %s", all[0].IP, podCIDR())
	}
	wantRow(t, out, all[0].Name, "1/1", "Running", "0", `\S+`, regexp.QuoteMeta(all[0].IP.String()), "ubuntu01", "<none>", "<none>")
}

func (e exposed) resolve(t *testing.T) {
	ip, _ := e.nginx(t, 1)
	term := e.debugger(t)
	names := term.Do(t, e.s.line(t, "nslookup nginx"))
	wantRow(t, names, "Server:", regexp.QuoteMeta(world.Default().DNS))
	wantRow(t, names, "Address:", regexp.QuoteMeta(world.Default().DNS)+`#53`)
	wantRow(t, names, "Name:", `nginx\.test\.svc\.cluster\.local`)
	if diff := cmp.Diff([]string{ip}, lookedUp(names)); diff != "" {
		t.Errorf("address of nginx (-want +got):\n%s\n%s", diff, names)
	}
	resolv := term.Do(t, e.s.line(t, "cat /etc/resolv.conf"))
	wantText(t, resolv, "search test.svc.cluster.local svc.cluster.local cluster.local", "nameserver "+world.Default().DNS+"\n", "options ndots:5\n")
	wantText(t, term.Do(t, e.s.line(t, "curl nginx")), "<title>Welcome to nginx!</title>")
}

func (e exposed) elsewhere(t *testing.T) {
	ip, _ := e.nginx(t, 1)
	e.w.Kubectl(t, "run", "visitor", "-n", "default", "--image=thr3a/debugger", "--command", "--", "sleep", "infinity")
	t.Cleanup(func() { e.w.Kubectl(t, "delete", "pod", "visitor", "-n", "default", "--grace-period=1") })
	readyPods(t, e.w, "default", "run=visitor", 1)
	const visitor = "kubectl exec -n default visitor -- "
	if r := e.w.Shell("/", visitor+"nslookup nginx"); r.Err == nil {
		t.Errorf("the bare name is found in another namespace:\n%s", r.Stdout)
	}
	for _, command := range []string{"nslookup nginx.test", e.s.line(t, "nslookup nginx.test.svc.cluster.local")} {
		r := e.w.Shell("/", visitor+command)
		if diff := cmp.Diff([]string{ip}, lookedUp(r.Stdout)); diff != "" || r.Err != nil {
			t.Errorf("%s (-want +got):\n%s%v\n%s", command, diff, r.Err, r.Output())
		}
	}
}

func (e exposed) scale(t *testing.T) {
	_, all := e.nginx(t, 2)
	e.wantEndpoints(t, all)
	term := e.debugger(t)
	const requests = 100
	mark := fmt.Sprintf("count-%t", e.s.fromArticle())
	term.Do(t, fmt.Sprintf("for i in $(seq %d); do curl -s -o /dev/null 'nginx/?%s'; done", requests, mark))
	total := 0
	for _, p := range all {
		var served int
		world.Eventually(t, netTime, func() error {
			if served = strings.Count(e.w.Kubectl(t, "logs", p.Name), "GET /?"+mark); served == 0 {
				return fmt.Errorf("the log of %s has no request", p.Name)
			}
			return nil
		})
		// Even by chance: five standard deviations of 100 throws of a coin.
		if served < requests/2-25 || served > requests/2+25 {
			t.Errorf("%s has served %d of %d requests", p.Name, served, requests)
		}
		total += served
	}
	if total != requests {
		t.Errorf("the logs show %d requests, want %d", total, requests)
	}
}

func (e exposed) headless(t *testing.T) {
	_, all := e.nginx(t, 2)
	e.w.Kubectl(t, "delete", "svc", "nginx")
	e.s.shell(t, e.w, exposeHeadless)
	e.wantEndpoints(t, all)
	term := e.debugger(t)
	world.Eventually(t, netTime, func() error {
		out := term.Do(t, e.s.line(t, "nslookup nginx"))
		if diff := cmp.Diff(podIPs(all), lookedUp(out)); diff != "" {
			return fmt.Errorf("addresses of nginx (-want +got):\n%s\n%s", diff, out)
		}
		return nil
	})
	wantText(t, term.Do(t, "dig nginx"), "ANSWER: 0,")
	dig := e.s.line(t, "dig nginx +search")
	if world.OverIPv6() {
		dig += " AAAA" // it asks for addresses of IPv4 by itself
	}
	found := term.Do(t, dig)
	wantText(t, found, "ANSWER: 2,")
	for _, p := range all {
		wantRow(t, found, `nginx\.test\.svc\.cluster\.local\.`, `\d+`, "IN", world.Default().Record, regexp.QuoteMeta(p.IP.String()))
	}
}
