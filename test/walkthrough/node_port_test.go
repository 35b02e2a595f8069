//go:build linux

package walkthrough

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minato/test/world"
)

var nodePort = article{
	file:    "002_61b7b1b1208bd56d.txt",
	sha256:  "2f1bd67079f0f3d29e8955839a3c39a3fe82d1171c0a4ddd926b3c6a85710401",
	command: regexp.MustCompile(`^\$ (.+)`),
	yaml:    []yamlBlock{{"test-service.yaml", make([]int, 14)}, {"test-service-local.yaml", make([]int, 15)}}, // as indented there
}

const node11, node12 = "192.168.0.11", "192.168.0.12" // the names of the nodes, and over IPv4 their addresses

// lan are the addresses of article C.
type lan struct {
	host, node11, node12 string
	up                   []string
	clusterIP, table     string // a pattern, and the family of the nftables table
}

var (
	lan4 = lan{
		"192.168.0.1", node11, node12,
		[]string{"--node-cidr", "192.168.0.0/24", "--pod-cidr", "10.42.0.0/16", "--service-cidr", "10.43.0.0/16"}, `10\.43\.\d+\.\d+`, "ip",
	}
	lan6 = lan{
		"fd00:192:168::1", "fd00:192:168::11", "fd00:192:168::12",
		[]string{"--ip-family", "ipv6", "--node-cidr", "fd00:192:168::/64", "--pod-cidr", "fd00:10:42::/56", "--service-cidr", "fd00:10:43::/112"},
		`fd00:10:43::[0-9a-f]+`, "ip6",
	}
)

// address is that of a node, by its name.
func (l lan) address(node string) string {
	return map[string]string{node11: l.node11, node12: l.node12}[node]
}

// at is the NodePort of a node, by its name.
func (l lan) at(node string) string { return world.At(l.address(node), 31000) }

func TestC_NodePort(t *testing.T) {
	testNodePort(t, world.Config{IPv4: "TestC_NodePortOverIPv6 does the same"}, lan4)
}

// The names of the nodes stay: the examples name them.
func TestC_NodePortOverIPv6(t *testing.T) { testNodePort(t, world.Config{}, lan6) }

func testNodePort(t *testing.T, config world.Config, l lan) {
	config.Up = append(slices.Clone(l.up), "--node", node11+"="+l.node11, "--node", node12+"="+l.node12)
	config.Images = []string{"nginx"}
	w := world.Start(t, config)
	root := w.ImageRoot(t, "nginx")
	fromEach(t, "002-nodeport", nodePort, func(t *testing.T, s *source) {
		c := balanced{w, s, root, l}
		t.Run("C1_EitherNodeReachesThePodsOfBoth", c.both)
		t.Run("C1_ANodeLeftOutOfTheBalancerStillServes", c.leftOut)
		t.Run("C1_ExplainAndShowSayWhoDecides", c.explained)
		t.Run("C2_ALabelOfTheNodeChangesNothing", c.labelNode)
		t.Run("C2_APodWithoutTheLabelGetsNoTraffic", c.labelPod)
		t.Run("C3_PolicyLocalReachesTheNodesOwnPods", c.local)
		t.Run("C3_BalancerTakesOutANodeWithoutAPod", c.takenOut)
		t.Run("C4_DescribeShowsTheService", c.describe)
		w.Kubectl(t, "delete", "service", "test-service")
		w.Kubectl(t, "delete", "pod", "--all")
	})
}

// balanced are the steps of article C. The balancer is a real nginx on the LAN.
type balanced struct {
	w    *world.World
	s    *source
	root string // of nginx
	lan  lan
}

// pods are web-11 and web-12 with the label back, and their Service with policy Cluster.
func (c balanced) pods(t *testing.T) []pod {
	t.Helper()
	return c.with(t, "test-service.yaml")
}

func (c balanced) with(t *testing.T, service string) []pod {
	t.Helper()
	examples, err := filepath.Abs("../../examples/002-nodeport")
	if err != nil {
		t.Fatal(err)
	}
	// Not by the article: it had pods already.
	c.w.Kubectl(t, "apply", "-f", filepath.Join(examples, "pods.yaml"))
	c.w.Kubectl(t, "label", "pod", "web-11", "web-12", "app=test-server", "--overwrite")
	c.w.Kubectl(t, "apply", "-f", filepath.Join(c.s.dir, service))
	all := readyPods(t, c.w, "default", "app=test-server", 2)
	sayWho(t, c.w, "default", "", all)
	c.wantEndpoints(t, all)
	return all
}

// wantEndpoints waits until describe lists port 80 of the pods and nothing else.
func (c balanced) wantEndpoints(t *testing.T, all []pod) string {
	t.Helper()
	var want []string
	for _, p := range all {
		want = append(want, world.At(p.IP.String(), 80))
	}
	slices.Sort(want)
	var out string
	world.Eventually(t, netTime, func() error {
		out = c.s.shell(t, c.w, "kubectl describe service test-service")
		row := regexp.MustCompile(`(?m)^Endpoints:\s+(\S*)$`).FindStringSubmatch(out)
		if row == nil {
			return fmt.Errorf("no endpoints in:\n%s", out)
		}
		got := strings.Split(row[1], ",")
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("endpoints (-want +got):\n%s", diff)
		}
		return nil
	})
	return out
}

// balance starts nginx on the LAN with the article's upstreams, without those that are left out.
func (c balanced) balance(t *testing.T, leftOut ...string) {
	t.Helper()
	config, err := os.ReadFile("../../examples/002-nodeport/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(config)
	if c.s.fromArticle() {
		block := regexp.MustCompile(`(?s)upstream testapp \{.*?\n *\}`)
		text = block.ReplaceAllLiteralString(text, block.FindString(c.s.text))
	}
	for _, node := range []string{node11, node12} {
		server := "server " + c.lan.at(node)
		if slices.Contains(leftOut, node) {
			server = "# " + server
		}
		text = strings.Replace(text, "server "+node+":31000", server, 1)
	}
	if err := os.WriteFile(filepath.Join(c.root, "etc/nginx/lan.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := len(regexp.MustCompile(`(?m)^ +server \S+:31000 `).FindAllString(text, -1)); n != 2-len(leftOut) {
		t.Fatalf("%d upstreams, want %d:\n%s", n, 2-len(leftOut), text)
	}
	c.w.Daemon(t, c.root, "/usr/sbin/nginx", "-c", "/etc/nginx/lan.conf")
	world.Eventually(t, netTime, func() error { _, err := c.ask(); return err })
}

// reply is what the balancer gives: which pod, and the names of the nodes that it asked for it, the last with success.
type reply struct {
	pod   string
	nodes []string
}

func (c balanced) ask() (reply, error) {
	r := c.w.OnLAN("curl", "-sf", "-m", "10", "-D", "-", "http://127.0.0.1:8088/who")
	if r.Err != nil {
		return reply{}, fmt.Errorf("the balancer: %w: %s", r.Err, r.Output())
	}
	head, body, _ := strings.Cut(r.Stdout, "\r\n\r\n")
	var a reply
	for _, line := range strings.Split(head, "\r\n") {
		if list, ok := strings.CutPrefix(line, "X-Upstream: "); ok {
			for _, addr := range strings.Split(list, ", ") {
				i := slices.IndexFunc([]string{node11, node12}, func(node string) bool { return c.lan.at(node) == addr })
				if i < 0 {
					return reply{}, fmt.Errorf("the balancer has asked %s, which is no node", addr)
				}
				a.nodes = append(a.nodes, []string{node11, node12}[i])
			}
		}
	}
	a.pod = strings.TrimSpace(body)
	return a, nil
}

// askMany asks n times and counts which pods answered and which nodes were asked.
func (c balanced) askMany(t *testing.T, n int) (pods, nodes map[string]int) {
	t.Helper()
	pods, nodes = map[string]int{}, map[string]int{}
	for range n {
		a, err := c.ask()
		if err != nil {
			t.Fatal(err)
		}
		pods[a.pod]++
		for _, node := range a.nodes {
			nodes[node]++
		}
	}
	return pods, nodes
}

// wantKeys fails unless exactly these were counted.
func wantKeys(t *testing.T, what string, got map[string]int, want ...string) {
	t.Helper()
	var keys []string
	for k := range got {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("%s (-want +got):\n%s%v", what, diff, got)
	}
}

// requests are enough that a pod with an even chance is hit, but for one time in a million million.
const requests = 40

func (c balanced) both(t *testing.T) {
	c.pods(t)
	c.balance(t)
	pods, nodes := c.askMany(t, requests)
	wantKeys(t, "pods that answer", pods, "web-11", "web-12")
	wantKeys(t, "nodes that are asked", nodes, node11, node12)
	for _, node := range []string{node11, node12} {
		pods := map[string]int{}
		for range requests {
			pods[strings.TrimSpace(c.w.Must(t, "curl", "-sf", "-m", "5", "http://"+c.lan.at(node)+"/who"))]++
		}
		wantKeys(t, "pods behind "+node, pods, "web-11", "web-12")
	}
}

func (c balanced) leftOut(t *testing.T) {
	all := c.pods(t)
	c.balance(t, node12)
	pods, nodes := c.askMany(t, requests)
	wantKeys(t, "pods that answer", pods, "web-11", "web-12")
	wantKeys(t, "nodes that are asked", nodes, node11)
	for _, p := range all {
		wantText(t, c.w.Kubectl(t, "logs", p.Name), c.lan.node11+` - - [`) // whose address it sees
	}
}

func (c balanced) explained(t *testing.T) {
	all := c.pods(t)
	r := c.w.Shell("/", "minato explain "+c.lan.at(node11)+" --from lan")
	if r.Err != nil {
		t.Fatalf("explain: %v\n%s", r.Err, r.Output())
	}
	wantText(t, r.Stdout, "default/test-service, its NodePort", "Cluster, for packets from outside of "+node11, "delivered",
		"seen as "+c.lan.node11+": masqueraded, since externalTrafficPolicy is Cluster")
	plan := c.w.Shell("/", "minato show nftables --node "+node11)
	if plan.Err != nil {
		t.Fatalf("show: %v\n%s", plan.Err, plan.Output())
	}
	for _, p := range all {
		wantText(t, r.Stdout, fmt.Sprintf(" 50.0%%  %s pod default/%s on %s", world.At(p.IP.String(), 80), p.Name, p.Node))
		wantText(t, plan.Stdout, fmt.Sprintf("endpoint %s probability=0.500", world.At(p.IP.String(), 80)))
	}
	wantRow(t, plan.Stdout, `\s+frontend outside `+regexp.QuoteMeta(c.lan.at(node11))+`/tcp NodePort: random over 2 of .*, masquerade`)
	// And the kernel has it: the addresses to which it translates.
	rules := c.w.OnNode(node11, "nft", "list", "table", c.lan.table, "minato").Stdout
	for _, p := range all {
		wantText(t, rules, p.IP.String()+" . 80")
	}
}

func (c balanced) labelNode(t *testing.T) {
	all := c.pods(t)
	wantText(t, c.s.shell(t, c.w, "kubectl label node 192.168.0.12 app=hogehoge --overwrite"), "node/192.168.0.12 ")
	t.Cleanup(func() { c.w.Kubectl(t, "label", "node", node12, "app-") })
	// Nothing is to happen, so there is nothing to wait for: what does happen takes milliseconds.
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		c.wantEndpoints(t, all)
	}
}

func (c balanced) labelPod(t *testing.T) {
	all := c.pods(t)
	c.w.Kubectl(t, "label", "pod", "web-12", "app=hogehoge", "--overwrite")
	c.wantEndpoints(t, slices.DeleteFunc(slices.Clone(all), func(p pod) bool { return p.Name == "web-12" }))
	c.balance(t)
	world.Eventually(t, netTime, func() error {
		if pods, _ := c.askMany(t, 10); pods["web-12"] > 0 {
			return fmt.Errorf("web-12 still answers: %v", pods)
		}
		return nil
	})
	pods, nodes := c.askMany(t, requests)
	wantKeys(t, "pods that answer", pods, "web-11")
	wantKeys(t, "nodes that are asked", nodes, node11, node12)
	if !slices.Contains(c.w.Sandboxes(t), "default/web-12") {
		t.Error("the pod was to lose its traffic, not its life")
	}
}

func (c balanced) local(t *testing.T) {
	all := c.with(t, "test-service-local.yaml")
	c.balance(t)
	world.Eventually(t, netTime, func() error {
		for range 10 {
			if a, err := c.ask(); err != nil || a.nodes[len(a.nodes)-1] != "192.168.0."+strings.TrimPrefix(a.pod, "web-") {
				return fmt.Errorf("%v answers (%v)", a, err)
			}
		}
		return nil
	})
	for i, node := range []string{node11, node12} {
		mark := fmt.Sprintf("local-%t-%d", c.s.fromArticle(), i)
		for range requests / 4 {
			out := c.w.Must(t, "curl", "-s", "-m", "5", "http://"+c.lan.at(node)+"/who?"+mark)
			if want := "web-" + strings.TrimPrefix(node, "192.168.0."); strings.TrimSpace(out) != want {
				t.Errorf("%s: %s answers, want %s", node, out, want)
			}
		}
		at := slices.IndexFunc(all, func(p pod) bool { return p.Node == node })
		world.Eventually(t, netTime, func() error {
			log := c.w.Kubectl(t, "logs", all[at].Name)
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(c.lan.host) + ` - .*` + mark).MatchString(log) {
				return fmt.Errorf("%s has not seen %s, the client's own address:\n%s", all[at].Name, c.lan.host, log)
			}
			return nil
		})
	}
}

// takenOut has policy Local and one pod: the other node is silent.
func (c balanced) takenOut(t *testing.T) {
	all := c.with(t, "test-service-local.yaml")
	c.w.Kubectl(t, "label", "pod", "web-12", "app=hogehoge", "--overwrite")
	c.wantEndpoints(t, slices.DeleteFunc(slices.Clone(all), func(p pod) bool { return p.Name == "web-12" }))
	const curlTimedOut = 28
	world.Eventually(t, netTime, func() error {
		if r := c.w.OnLAN("curl", "-s", "-m", "1", "http://"+c.lan.at(node12)+"/who"); r.Code() != curlTimedOut {
			return fmt.Errorf("the node without a pod is to be silent: %q (%v)", r.Output(), r.Err)
		}
		return nil
	})
	r := c.w.Shell("/", "minato explain "+c.lan.at(node12)+" --from lan")
	const exitDropped = 4
	if r.Code() != exitDropped {
		t.Errorf("explain: %v, want exit code %d\n%s", r.Err, exitDropped, r.Output())
	}
	wantText(t, r.Stdout, "externalTrafficPolicy is Local, and no backend is on "+node12)
	c.balance(t)
	var nodes map[string]int
	for range 3 { // at most max_fails=3 failures, then seven seconds of peace
		pods, asked := c.askMany(t, 10)
		wantKeys(t, "pods that answer", pods, "web-11")
		if nodes = asked; nodes[node12] == 0 {
			return
		}
	}
	t.Errorf("nginx has not taken out %s: %v", node12, nodes)
}

func (c balanced) describe(t *testing.T) {
	out := c.wantEndpoints(t, c.pods(t))
	for field, value := range map[string]string{
		"Name": "test-service", "Namespace": "default", "Labels": "app=test-server", "Selector": "app=test-server", "Type": "NodePort",
		"IP": c.lan.clusterIP, "Port": `<unset>\s+80/TCP`, "TargetPort": "80/TCP", "NodePort": `<unset>\s+31000/TCP`,
		"Session Affinity": "None", "External Traffic Policy": "Cluster", "Events": "<none>",
	} {
		wantRow(t, out, field+":", value)
	}
}
