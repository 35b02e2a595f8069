//go:build linux

package walkthrough

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

// What the articles take for granted.
func TestClusterAroundTheArticles(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx", "thr3a/debugger"}})
	c := cluster{w}
	t.Run("ThreeNodesAreReady", c.nodes)
	t.Run("BothKubectlsWork", c.kubectls)
	t.Run("UserKubeconfigHasAContextOfTheInstance", c.userKubeconfig)
	t.Run("UntaggedImageStartsWithoutAnUplink", c.noUplink)
	t.Run("UnknownImageIsReportedAndBacksOff", c.unknownImage)
	t.Run("PodReachesTheAPIWithItsTokenOnly", c.token)
	t.Run("PodAndNodeReachTheInternet", c.internet)
	t.Run("PodReachesItselfByItsOwnService", c.hairpin)
	t.Run("BackendSeesTheAddressOfAPodOfAnyNode", c.peer)
	t.Run("ElementDeletedByHandShowsAndIsRepaired", c.repair)
}

type cluster struct{ w *world.World }

func (c cluster) nodes(t *testing.T) {
	world.Eventually(t, podTime, func() error {
		out := c.w.Kubectl(t, "get", "nodes", "--no-headers")
		if rows := regexp.MustCompile(`(?m)^node[123]\s+Ready\s`).FindAllString(out, -1); len(rows) != 3 {
			return fmt.Errorf("not three nodes are ready:\n%s", out)
		}
		return nil
	})
	wantRow(t, c.w.Verb("node", "list").Stdout, "node1", regexp.QuoteMeta(world.Default().Node(1)), "Ready", `\S+`)
}

// kubectls runs one small life of a pod with each kubectl: create, wait, exec, logs, delete.
func (c cluster) kubectls(t *testing.T) {
	all := c.w.Kubectls()
	if _, ok := all["kubectl"]; !ok {
		t.Log("this machine has no kubectl of its own: only minato's is tried")
	}
	for name, kubectl := range all {
		t.Run(name, func(t *testing.T) {
			run := func(args ...string) string {
				t.Helper()
				return c.w.Must(t, append(slices.Clone(kubectl), args...)...)
			}
			run("run", "life", "--image=nginx", "--port=80")
			run("wait", "--for=condition=Ready", "pod/life", "--timeout=60s")
			if out := run("exec", "life", "--", "hostname"); out != "life\n" {
				t.Errorf("exec: got %q", out)
			}
			run("exec", "life", "--", "bash", "-c", "exec 3<>/dev/tcp/localhost/80; printf 'GET /logged HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3")
			world.Eventually(t, netTime, func() error {
				if out := run("logs", "life"); !strings.Contains(out, "GET /logged") {
					return fmt.Errorf("no request in the log:\n%s", out)
				}
				return nil
			})
			run("delete", "pod", "life")
		})
	}
}

func (c cluster) userKubeconfig(t *testing.T) {
	out := c.w.Must(t, c.w.Minato, "kubectl", "--name", c.w.Name, "--kubeconfig", c.w.UserKubeconfig(), "--context", "minato-"+c.w.Name, "get", "nodes", "-o", "name")
	wantText(t, out, "node/node1\n")
}

func (c cluster) noUplink(t *testing.T) {
	c.run(t, "untagged", "--image=nginx")
	policy := c.w.Kubectl(t, "get", "pod", "untagged", "-o", "jsonpath={.spec.containers[0].imagePullPolicy}")
	if policy != "Always" {
		t.Errorf("pull policy %q: this shows nothing unless it is Always", policy)
	}
}

// run makes a ready pod that ends with the test.
func (c cluster) run(t *testing.T, name string, args ...string) pod {
	t.Helper()
	c.w.Kubectl(t, append([]string{"run", name}, args...)...)
	t.Cleanup(func() { c.w.Kubectl(t, "delete", "pod", name, "--grace-period=1") })
	return readyPods(t, c.w, "default", "run="+name, 1)[0]
}

// debugger makes a pod with curl, on a node or, with "", on any.
func (c cluster) debugger(t *testing.T, name, node string) pod {
	t.Helper()
	args := []string{"--image=thr3a/debugger"}
	if node != "" {
		args = append(args, fmt.Sprintf(`--overrides={"spec":{"nodeName":%q}}`, node))
	}
	return c.run(t, name, append(args, "--command", "--", "sleep", "infinity")...)
}

func (c cluster) unknownImage(t *testing.T) {
	c.w.Kubectl(t, "run", "unknown", "--image="+netnstest.FarAddr+"/no/such:1")
	t.Cleanup(func() { c.w.Kubectl(t, "delete", "pod", "unknown", "--grace-period=1") })
	// By a watch, so that no state is missed.
	watch := c.w.Terminal(t, "/", `kubectl get pod unknown --watch -o jsonpath='{.status.containerStatuses[0].state.waiting.reason}{"\n"}'`)
	watch.Expect(t, podTime, `(?m)^ErrImagePull\s`)
	watch.Expect(t, podTime, `(?m)^ImagePullBackOff\s`)
}

func (c cluster) token(t *testing.T) {
	c.debugger(t, "api-client", "")
	status := func(arguments string) string {
		t.Helper()
		line := "cd /var/run/secrets/kubernetes.io/serviceaccount && curl -s -o /dev/null -w '%{http_code}' --cacert ca.crt " +
			arguments + " https://kubernetes.default.svc/api"
		return c.w.Kubectl(t, "exec", "api-client", "--", "bash", "-c", line)
	}
	if got := status(`-H "Authorization: Bearer $(cat token)"`); got != "200" {
		t.Errorf("with the pod's token: status %s, want 200", got)
	}
	if got := status(""); got != "401" && got != "403" {
		t.Errorf("without a token: status %s, want 401 or 403", got)
	}
}

func (c cluster) internet(t *testing.T) {
	a := world.Default()
	c.debugger(t, "surfer", "")
	want := "the internet greets " + a.Uplink + "\n"
	for _, to := range []string{"www.example.com", world.InURL(a.Far)} {
		if out := c.w.Kubectl(t, "exec", "surfer", "--", "curl", "-s", "-m", "10", to); out != want {
			t.Errorf("pod to %s: got %q, want %q", to, out, want)
		}
	}
	if r := c.w.OnNode("node1", "curl", "-s", "-m", "10", world.InURL(a.Far)); r.Stdout != want {
		t.Errorf("node to %s: got %q (%v), want %q", a.Far, r.Output(), r.Err, want)
	}
}

// server makes a pod of nginx and a Service before it, and returns the pod and the Service's address.
func (c cluster) server(t *testing.T, name string) (pod, string) {
	t.Helper()
	p := c.run(t, name, "--image=nginx", "--port=80", "--expose")
	t.Cleanup(func() { c.w.Kubectl(t, "delete", "service", name) })
	return p, clusterIP(t, c.w, "default", name)
}

// peerOf asks until the server's log shows the request, and returns the client's address in it.
func (c cluster) peerOf(t *testing.T, server, mark string, ask func() world.Result) string {
	t.Helper()
	var peer string
	world.Eventually(t, netTime, func() error {
		if r := ask(); r.Err != nil {
			return fmt.Errorf("no answer: %w: %s", r.Err, r.Output())
		}
		line := regexp.MustCompile(`(?m)^([0-9a-f.:]+) - - \[.*GET /` + mark + ` `).FindStringSubmatch(c.w.Kubectl(t, "logs", server))
		if line == nil {
			return fmt.Errorf("no request for /%s in the log", mark)
		}
		peer = line[1]
		return nil
	})
	return peer
}

func (c cluster) hairpin(t *testing.T) {
	server, ip := c.server(t, "self")
	// nginx's image has no curl; bash can do it.
	get := fmt.Sprintf("exec 3<>/dev/tcp/%s/80 && printf 'GET /myself HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3", ip)
	peer := c.peerOf(t, "self", "myself", func() world.Result {
		return c.w.OnLAN("bash", "-c", `kubectl exec self -- bash -c "$1"`, "-", get)
	})
	node := c.w.Kubectl(t, "get", "node", server.Node, "-o", "jsonpath={.status.addresses[0].address}")
	if peer != node {
		t.Errorf("the pod sees itself come from %s, want its node's address %s: from its own address the reply would not return through the node", peer, node)
	}
}

func (c cluster) peer(t *testing.T) {
	server, ip := c.server(t, "seen")
	for _, node := range []string{"node1", "node2", "node3"} {
		name := "client-" + node
		client := c.debugger(t, name, node)
		peer := c.peerOf(t, "seen", name, func() world.Result {
			return c.w.Shell("/", fmt.Sprintf("kubectl exec %s -- curl -sf -o /dev/null -m 3 %s/ && kubectl exec %s -- curl -s -o /dev/null -m 3 %s/%s", name, world.InURL(ip), name, world.InURL(ip), name))
		})
		if peer != client.IP.String() {
			t.Errorf("a pod of %s is seen by one of %s as %s, want its own address %s", node, server.Node, peer, client.IP)
		}
	}
}

// repairTime is how long a repair may take, with the time of the last diff in it.
const repairTime = 5 * time.Second

// repair takes away the ClusterIP of the API as a careless administrator would, with nft.
func (c cluster) repair(t *testing.T) {
	diff := func() world.Result { return c.w.Verb("diff", "--node", "node1") }
	if r := diff(); r.Code() != 0 {
		t.Fatalf("a difference before anything is changed: %v\n%s", r.Err, r.Output())
	}
	family, api := world.Default().Table, world.Default().API
	ruleset := c.w.OnNode("node1", "nft", "list", "ruleset", family)
	table, set, element, err := elementOf(ruleset.Stdout, api+" ")
	if err != nil {
		t.Fatalf("%v in (%v):\n%s", err, ruleset.Err, ruleset.Output())
	}
	remove := func() {
		deleted := c.w.OnNode("node1", "nft", "delete", "element", family, table, set, "{ "+element+" }")
		if deleted.Err != nil {
			t.Fatalf("delete %s: %v\n%s", element, deleted.Err, deleted.Output())
		}
	}
	repaired := func() {
		world.Eventually(t, repairTime, func() error {
			if r := diff(); r.Code() != 0 {
				return fmt.Errorf("not repaired: %v\n%s", r.Err, r.Output())
			}
			return nil
		})
	}
	// A repair comes within a second, so a diff may be too late; not every time.
	seen := false
	for i := 0; i < 5 && !seen; i++ {
		remove()
		r := diff()
		seen = r.Code() == 1 && strings.Contains(r.Stdout, api)
		repaired()
	}
	if !seen {
		t.Errorf("diff never shows that %s was deleted", element)
	}
}

// elementOf finds the first map element whose key holds a text, and the key as nft wants it back.
func elementOf(ruleset, text string) (table, set, key string, err error) {
	for _, line := range strings.Split(ruleset, "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[0] == "table":
			table = f[2]
		case len(f) >= 2 && (f[0] == "map" || f[0] == "set"):
			set = f[1]
		case strings.Contains(line, text):
			_, line, _ = strings.Cut("{"+strings.Replace(line, "elements = {", "", 1), "{")
			for _, e := range strings.Split(strings.Trim(line, " \t{},"), ", ") {
				if before, _, ok := strings.Cut(e, " : "); ok && strings.Contains(e, text) {
					return table, set, strings.TrimSpace(before), nil
				}
			}
		}
	}
	return "", "", "", fmt.Errorf("no element with %q", text)
}
