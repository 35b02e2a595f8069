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

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/world"
)

var podNetwork = article{
	file:    "001_4d65cd7aeeb8e13a.txt",
	sha256:  "b41a93605f95abe34ce49eb6bc1920ad2ec60e82e7ba4e657fd6bf2be9aff52b",
	command: regexp.MustCompile(`^(?:pi@raspi001:~/tmp \$|root@\S+:/data#|~ \$) (.+)`),
	yaml: []yamlBlock{
		{"sample-deployment.yaml", []int{0, 0, 0, 2, 0, 2, 2, 4, 6, 2, 4, 6, 8, 4, 6, 8, 10, 10, 12, 8, 10}},
		{"sample-clusterip.yaml", []int{0, 0, 0, 2, 0, 2, 2, 4, 6, 6, 6, 2, 4}},
	},
	excused: []string{"apt-get update && apt-get install curl -y", "exit"}, // our redis image has curl
}

func TestB_PodNetwork(t *testing.T) {
	w := world.Start(t, world.Config{
		Up:     []string{"--node-cidr", "192.168.3.0/24", "--node", "raspi002=192.168.3.33", "--node", "raspi003=192.168.3.34", "--node", "raspi001=192.168.3.32"},
		Images: []string{"nginx:1.12", "redis:3.2", "alpine", "thr3a/debugger"},
		IPv4:   "the article's nodes have addresses of IPv4; TestFamilies and TestClusterAroundTheArticles do the steps",
		// As Docker sets it: whatever goes through the host must be let through explicitly.
		Prepare: func(host netns.NS) { netnstest.Run(t, host, "iptables", "-P", "FORWARD", "DROP") },
	})
	// raspi001 is the article's master, which runs no pods: so three pods share two nodes.
	w.Kubectl(t, "cordon", "raspi001")
	fromEach(t, "001-pod-network", podNetwork, func(t *testing.T, s *source) {
		n := network{w, s}
		t.Run("B1_PodsHaveAddressesOnSeveralNodes", n.deployment)
		t.Run("B2_PodsReachEachOther", n.reach)
		t.Run("B2_NodeReachesEveryPod", n.fromNode)
		t.Run("B2_PodsReachTheInternet", n.internet)
		t.Run("B3_ClusterIPBalancesOverThePods", n.clusterIP)
		t.Run("B3_ClusterIPIsClosedToTheLAN", n.closed)
		t.Run("B4_PodFindsServicesByEnvironmentAndName", n.discovery)
		if !s.fromArticle() {
			t.Run("B4_PodsResolveByTheirPolicy", n.policies)
		}
		t.Run("B5_DeleteRemovesAll", n.remove)
	})
}

// network are the steps of article B.
type network struct {
	w *world.World
	s *source
}

const (
	applySample    = "kubectl apply -f sample-deployment.yaml"
	applyClusterIP = "kubectl apply -f sample-clusterip.yaml"
	sayHostnames   = "for PODNAME in `kubectl get pods -l app=sample-app -o jsonpath='{.items[*].metadata.name}'`; do kubectl exec -it ${PODNAME} -- cp /etc/hostname /usr/share/nginx/html/index.html; done"
)

func (n network) sample(t *testing.T) []pod {
	t.Helper()
	n.s.once(t, n.w, applySample)
	return readyPods(t, n.w, "default", "app=sample-app", 3)
}

// service is the ClusterIP of sample-clusterip, when it has all pods behind it.
func (n network) service(t *testing.T) (string, []pod) {
	t.Helper()
	all := n.sample(t)
	n.s.once(t, n.w, applyClusterIP)
	return clusterIP(t, n.w, "default", "sample-clusterip"), all
}

func (n network) deployment(t *testing.T) {
	n.sample(t)
	out := n.s.shell(t, n.w, `kubectl get pods -l app=sample-app -o custom-columns="NAME:{metadata.name}, IP:{status.podIP},NODE:{spec.nodeName}"`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if diff := cmp.Diff([]string{"NAME", "IP", "NODE"}, strings.Fields(lines[0])); diff != "" || len(lines) != 4 {
		t.Fatalf("head (-want +got):\n%s\n%d lines, want 4:\n%s", diff, len(lines), out)
	}
	ranges := map[string]netip.Prefix{"raspi002": netip.MustParsePrefix("10.244.1.0/24"), "raspi003": netip.MustParsePrefix("10.244.2.0/24")}
	nodes := map[string]bool{}
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) != 3 {
			t.Fatalf("not three columns: %q", l)
		}
		if ip, err := netip.ParseAddr(f[1]); err != nil || !ranges[f[2]].Contains(ip) {
			t.Errorf("pod %s on %s has address %s (%v)", f[0], f[2], f[1], err)
		}
		nodes[f[2]] = true
	}
	if len(nodes) < 2 {
		t.Errorf("all pods are on one node:\n%s", out)
	}
}

// neighbours finds a pod, another on its node, and one on another node.
func neighbours(t *testing.T, all []pod) (from, same, other pod) {
	t.Helper()
	for _, a := range all {
		for _, b := range all {
			if a.Name != b.Name && a.Node == b.Node {
				i := slices.IndexFunc(all, func(p pod) bool { return p.Node != a.Node })
				if i < 0 {
					t.Fatal("all pods are on one node")
				}
				return a, b, all[i]
			}
		}
	}
	t.Fatalf("no two pods share a node: %v", all)
	return
}

func (n network) reach(t *testing.T) {
	all := n.sample(t)
	sayWho(t, n.w, "default", "nginx-container", all)
	from, same, other := neighbours(t, all)
	term := n.w.Terminal(t, n.s.dir, n.s.line(t, fmt.Sprintf("kubectl exec -it %s -c redis-container -- /bin/bash", from.Name)))
	term.Expect(t, netTime, "# ")
	for _, c := range []struct {
		to   string
		want pod
	}{{"localhost", from}, {from.IP.String(), from}, {same.IP.String(), same}, {other.IP.String(), other}} {
		wantText(t, term.Do(t, n.s.line(t, "curl "+c.to+":80")), "<!DOCTYPE html>")
		wantText(t, term.Do(t, "curl -s "+c.to+":80/who"), c.want.Name)
	}
	term.Type(t, "exit\n")
	if out, err := term.Wait(t, netTime); err != nil {
		t.Errorf("leaving the container: %v\n%s", err, out)
	}
}

func (n network) fromNode(t *testing.T) {
	all := n.sample(t)
	sayWho(t, n.w, "default", "nginx-container", all)
	for _, p := range all {
		for _, node := range []string{"raspi001", "raspi002", "raspi003"} {
			r := n.w.OnNode(node, strings.Fields(n.s.line(t, "curl "+p.IP.String()+":80"))...)
			if r.Err != nil {
				t.Errorf("%s to %s on %s: %v\n%s", node, p.Name, p.Node, r.Err, r.Output())
			}
			wantText(t, r.Stdout, "<!DOCTYPE html>")
			wantText(t, n.w.OnNode(node, "curl", "-s", p.IP.String()+":80/who").Stdout, p.Name)
		}
	}
}

func (n network) internet(t *testing.T) {
	from := n.sample(t)[0]
	for _, to := range []string{"www.example.com", netnstest.FarAddr} {
		out := n.w.Kubectl(t, "exec", from.Name, "-c", "redis-container", "--", "curl", "-s", "-m", "10", to)
		wantText(t, out, "the internet greets "+netnstest.HostAddr)
	}
}

func (n network) clusterIP(t *testing.T) {
	ip, all := n.service(t)
	wantRow(t, n.s.shell(t, n.w, "kubectl get service sample-clusterip"), "sample-clusterip", "ClusterIP", regexp.QuoteMeta(ip), "<none>", "8080/TCP", `\S+`)
	var out string
	world.Eventually(t, netTime, func() error {
		out = n.s.shell(t, n.w, "kubectl describe service sample-clusterip")
		for _, p := range all {
			if !strings.Contains(out, p.IP.String()+":80") {
				return fmt.Errorf("%s is no endpoint:\n%s", p.IP, out)
			}
		}
		return nil
	})
	for field, value := range map[string]string{
		"Selector": "app=sample-app", "Type": "ClusterIP", "IP": regexp.QuoteMeta(ip), "Port": `http-port\s+8080/TCP`, "TargetPort": "80/TCP",
	} {
		wantRow(t, out, field+":", value)
	}
	n.s.shell(t, n.w, sayHostnames)
	answered := map[string]bool{}
	world.Eventually(t, netTime, func() error {
		r := n.w.OnNode("raspi001", strings.Fields(n.s.line(t, "curl "+ip+":8080"))...)
		name := strings.TrimSpace(r.Stdout)
		if !slices.Contains(podNames(all), name) {
			return fmt.Errorf("curl answers %q (%v), want the name of a pod", r.Output(), r.Err)
		}
		if answered[name] = true; len(answered) < len(all) {
			return fmt.Errorf("only %v answer", answered)
		}
		return nil
	})
}

func (n network) closed(t *testing.T) {
	ip, _ := n.service(t)
	n.w.Internet.Own(t, ip)
	before := len(n.w.Internet.Hits())
	if r := n.w.OnLAN(strings.Fields("curl -m 5 " + ip + ":8080")...); r.Err == nil {
		t.Errorf("the ClusterIP answers on the LAN: %q", r.Stdout)
	}
	n.s.line(t, "curl "+ip+":8080")
	if hits := n.w.Internet.Hits()[before:]; len(hits) != 0 {
		t.Errorf("traffic to the ClusterIP has left the machine: %q", hits)
	}
}

func (n network) discovery(t *testing.T) {
	ip, _ := n.service(t)
	// A pod made after the Service: variables are set when a container starts.
	n.w.Kubectl(t, "run", "debugger", "--image=thr3a/debugger", "--command", "--", "sleep", "infinity")
	t.Cleanup(func() { n.w.Kubectl(t, "delete", "pod", "debugger", "--grace-period=1") })
	readyPods(t, n.w, "default", "run=debugger", 1)
	in := func(command string) string {
		t.Helper()
		return strings.TrimSpace(n.w.Kubectl(t, append([]string{"exec", "debugger", "--"}, strings.Fields(command)...)...))
	}
	env := "\n" + in("env") + "\n"
	wantVariables(t, env, "SAMPLE_CLUSTERIP", ip, "8080")
	wantText(t, env, "\nSAMPLE_CLUSTERIP_SERVICE_PORT_HTTP_PORT=8080\n")

	const name = "sample-clusterip.default.svc.cluster.local"
	reverse := in("dig +short -x " + ip)
	for question, want := range map[string]string{
		"+short " + name:                     ip,
		"+short SRV _http-port._tcp." + name: "0 100 8080 " + name + ".",
		"+short www.example.com":             netnstest.FarAddr,
		"+tcp +short " + name:                ip,
	} {
		if got := in("dig " + question); got != want {
			t.Errorf("dig %s: got %q, want %q", question, got, want)
		}
	}
	if reverse != name+"." {
		t.Errorf("reverse look-up of %s: got %q, want %q", ip, reverse, name+".")
	}
	wantText(t, in("dig nothing.default.svc.cluster.local"), "status: NXDOMAIN")
	wantText(t, in("dig nothing.example.com"), "status: NXDOMAIN")
	for _, q := range n.w.Internet.Queries() {
		if strings.HasSuffix(q, ".cluster.local.") {
			t.Errorf("a name of the cluster went to the internet: %s", q)
		}
	}
}

func (n network) policies(t *testing.T) {
	n.s.shell(t, n.w, "kubectl apply -f dns-policy.yaml")
	t.Cleanup(func() { n.s.shell(t, n.w, "kubectl delete -f dns-policy.yaml") })
	resolv := func(name string) string {
		t.Helper()
		var out string
		world.Eventually(t, podTime, func() error {
			r := n.w.Shell("/", "kubectl exec "+name+" -- cat /etc/resolv.conf")
			out = r.Stdout
			return r.Err
		})
		return out
	}
	for _, name := range []string{"dns-cluster-first", "dns-host-network"} {
		wantText(t, resolv(name), "nameserver 10.96.0.10\n", "search default.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5")
	}
	if out := resolv("dns-default"); strings.Contains(out, "10.96.0.10") || strings.Contains(out, "cluster.local") {
		t.Errorf("policy Default gives the cluster's names:\n%s", out)
	}
	want := "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:2\n"
	if diff := cmp.Diff(want, resolv("dns-none")); diff != "" {
		t.Errorf("policy None gives more than the pod says (-want +got):\n%s", diff)
	}
}

func (n network) remove(t *testing.T) {
	ip, all := n.service(t)
	n.s.shell(t, n.w, "kubectl delete -f sample-deployment.yaml -f sample-clusterip.yaml")
	world.Eventually(t, podTime, func() error {
		if out := n.w.Kubectl(t, "get", "pod,endpointslice", "-l", "app=sample-app", "-o", "name"); out != "" {
			return fmt.Errorf("still there: %s", out)
		}
		for _, p := range all {
			if slices.Contains(n.w.Sandboxes(t), "default/"+p.Name) {
				return fmt.Errorf("the container runtime still runs %s", p.Name)
			}
		}
		if r := n.w.OnNode("raspi002", "curl", "-s", "-m", "2", ip+":8080"); r.Err == nil {
			return fmt.Errorf("the ClusterIP still answers: %q", r.Stdout)
		}
		return nil
	})
}
