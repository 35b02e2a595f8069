//go:build linux

package walkthrough

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/world"
)

// A pod on every node, so that every node has something to lose.
const everywhere = `
kubectl apply -f - <<'END'
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
END`

// What becomes of a Service when a node goes, in each way in which it can, and when it is back.
func TestNodesFail(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx"}})
	if r := w.Shell("/", everywhere); r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, r.Output())
	}
	w.Kubectl(t, "rollout", "status", "daemonset/web", "--timeout=60s")
	f := failing{w: w, addr: w.Kubectl(t, "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")}
	f.serves(t, "node1", "node2", "node3")
	f.node = f.announcer(t)
	t.Run("VerbsSayWhatCanBeDone", f.refusals)
	t.Run("Killed", func(t *testing.T) { f.fails(t, "kill", "killed") })
	t.Run("Stopped", func(t *testing.T) { f.fails(t, "stop", "stopped") })
	t.Run("CutOff", f.partition)
	t.Run("AgentPaused", f.pause)
}

type failing struct {
	w          *world.World
	addr, node string // of the Service, and who announces it while all is well
}

func (f failing) verb(t *testing.T, args ...string) string {
	t.Helper()
	r := f.w.Verb(append([]string{"node"}, args...)...)
	if r.Err != nil {
		t.Fatalf("node %s: %v\n%s", strings.Join(args, " "), r.Err, r.Output())
	}
	return r.Stdout
}

func (f failing) refusals(t *testing.T) {
	for args, want := range map[string]string{
		"kill nobody":     "name one of the nodes (node1, node2, node3): there is no node nobody",
		"start " + f.node: "node " + f.node + " runs",
	} {
		if r := f.w.Verb(append([]string{"node"}, strings.Fields(args)...)...); r.Code() != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("node %s: %v\n%s\nwant %q", args, r.Err, r.Output(), want)
		}
	}
}

// announcer is the node that announces the address, as those see it that can be reached.
func (f failing) announcer(t *testing.T) string {
	t.Helper()
	out := f.w.Verb("show", "announcements").Stdout
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(f.addr) + `\s+(\S+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("%s is not announced:\n%s", f.addr, out)
	}
	return m[1]
}

// others are the nodes but for the one that fails.
func (f failing) others() []string {
	return slices.DeleteFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n == f.node })
}

// serves waits until the Service has its endpoints on exactly these nodes, and answers by every kind of address.
func (f failing) serves(t *testing.T, nodes ...string) {
	t.Helper()
	world.Eventually(t, podTime, func() error {
		out := f.w.Kubectl(t, "get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o",
			`jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName} {end}`)
		have := strings.Fields(out)
		slices.Sort(have)
		if !slices.Equal(have, nodes) {
			return fmt.Errorf("endpoints are ready on %v, want %v", have, nodes)
		}
		return nil
	})
	addresses := []string{world.At(f.addr, 80)}
	for _, n := range nodes {
		addresses = append(addresses, world.At(f.address(n), 32080))
	}
	clusterIP := f.w.Kubectl(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	// A node that is just gone is still chosen until every node has applied its going.
	world.Eventually(t, netTime, func() error {
		for range 5 {
			for _, a := range addresses {
				if r := f.w.OnLAN("curl", "-sf", "-o", "/dev/null", "-m", "2", "http://"+a); r.Err != nil {
					return fmt.Errorf("%s from the LAN: %w", a, r.Err)
				}
			}
			for _, n := range nodes {
				if r := f.w.OnNode(n, "curl", "-sf", "-o", "/dev/null", "-m", "2", "http://"+world.InURL(clusterIP)); r.Err != nil {
					return fmt.Errorf("%s from %s: %w", clusterIP, n, r.Err)
				}
				if err := f.resolves(t, n, clusterIP); err != nil {
					return fmt.Errorf("DNS of %s: %w", n, err)
				}
			}
		}
		return nil
	})
}

// resolves asks the DNS of a node for the Service's address.
func (f failing) resolves(t *testing.T, node, want string) error {
	c, err := f.w.NodeNetns(node).DialContext(t.Context(), "udp", world.At(world.Default().DNS, 53))
	if err != nil {
		return err
	}
	defer c.Close()
	question := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.StringToType[world.Default().Record])
	answer, _, err := new(dns.Client).ExchangeWithConn(question, &dns.Conn{Conn: c})
	if err != nil {
		return err
	}
	if len(answer.Answer) != 1 || !strings.HasSuffix(answer.Answer[0].String(), want) {
		return fmt.Errorf("want %s:\n%s", want, answer)
	}
	return nil
}

func (f failing) address(node string) string {
	n, err := strconv.Atoi(strings.TrimPrefix(node, "node"))
	if err != nil {
		panic(err) // the names are by this test
	}
	return world.Default().Node(n)
}

// shows waits for a word about the node in `minato node list`.
func (f failing) shows(t *testing.T, want string) {
	t.Helper()
	world.Eventually(t, podTime, func() error {
		for line := range strings.Lines(f.w.Verb("node", "list").Stdout) {
			if strings.HasPrefix(line, f.node+" ") && strings.Contains(line, "   "+want+"   ") {
				return nil
			}
		}
		return fmt.Errorf("%s is not %q:\n%s", f.node, want, f.w.Verb("node", "list").Stdout)
	})
}

// moves waits until the address is announced by another node.
func (f failing) moves(t *testing.T) {
	t.Helper()
	world.Eventually(t, netTime, func() error {
		if got := f.announcer(t); got == f.node || got == "<nobody>" {
			return fmt.Errorf("announced by %s", got)
		}
		return nil
	})
}

// recovers waits until all is as it was before.
func (f failing) recovers(t *testing.T) {
	t.Helper()
	f.shows(t, "Ready")
	f.serves(t, "node1", "node2", "node3")
	world.Eventually(t, netTime, func() error {
		if got := f.announcer(t); got != f.node {
			return fmt.Errorf("announced by %s, before by %s", got, f.node)
		}
		return nil
	})
}

func (f failing) fails(t *testing.T, verb, condition string) {
	f.verb(t, verb, f.node)
	f.moves(t)
	f.shows(t, "NotReady ("+condition+")")
	f.serves(t, f.others()...)
	if out := f.w.Kubectl(t, "get", "node", f.node, "-o", "jsonpath={.spec.taints[*].key}"); !strings.Contains(out, "node.kubernetes.io/") {
		t.Errorf("the Node has taints %q", out)
	}
	if verb == "kill" { // a restart of minato changes nothing
		if r := f.w.Verb("up", "--detach", "--replace"); r.Err != nil {
			t.Fatalf("up --replace: %v\n%s", r.Err, r.Output())
		}
		f.shows(t, "NotReady ("+condition+")")
		f.serves(t, f.others()...)
	}
	f.verb(t, "start", f.node)
	f.recovers(t)
}

// partition has the bridge forward nothing from and to the node, whose link stays up.
func (f failing) partition(t *testing.T) {
	lan := netns.At(filepath.Join(netns.Dir, f.w.Name+"-lan"))
	netnstest.Run(t, lan, "bridge", "link", "set", "dev", "p-"+f.node, "state", "0")
	f.moves(t)
	f.shows(t, "NotReady (cut off)")
	f.serves(t, f.others()...)
	netnstest.Run(t, lan, "bridge", "link", "set", "dev", "p-"+f.node, "state", "3")
	f.recovers(t)
}

// pause leaves the Node and its pods as they are.
func (f failing) pause(t *testing.T) {
	f.verb(t, "pause-agent", f.node)
	f.moves(t)
	f.shows(t, "Ready (agent paused)")
	f.serves(t, "node1", "node2", "node3")
	f.verb(t, "start", f.node)
	f.recovers(t)
}
