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

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

var everyWay = article{
	file:    "003_d98a9dbf5c90e577.txt",
	sha256:  "b73d92e6b557ec7dcad72de4a0707ca6222d7ff0e9c196997d54833196a72357",
	command: regexp.MustCompile(`^(?:pi@raspi001:~/tmp|~) \$ (.+)`),
	fenced:  true,
	excused: []string{
		"kubectl apply -f https://raw.githubusercontent.com/google/metallb/v0.7.3/manifests/metallb.yaml", // from a file of its shape
	},
}

func TestD_Expose(t *testing.T) {
	w := world.Start(t, world.Config{
		Up:     []string{"--node-cidr", "192.168.3.0/24", "--node", "raspi002=192.168.3.33", "--node", "raspi003=192.168.3.34", "--node", "raspi001=192.168.3.32"},
		Images: []string{"nginx", "nginx:1.12", "redis:3.2", "centos:7"},
		IPv4:   "the article's external addresses, pool and servers outside are of IPv4; TestFamilies has the other steps",
	})
	// raspi001 is the article's master, which runs no pods.
	w.Kubectl(t, "cordon", "raspi001")
	fromEach(t, "003-expose", everyWay, func(t *testing.T, s *source) {
		e := ways{w, s}
		t.Run("D1_ExternalIPReachesThePodsOfAllNodes", e.externalIP)
		t.Run("D2_NodePortOpensOnEveryNode", e.nodePort)
		t.Run("D2_NodePortOutOfRangeIsRefused", e.nodePortRange)
		t.Run("D3_LoadBalancerWithoutConfigurationGetsAnAddress", e.defaultPool)
		t.Run("D3_ManifestOfMetalLBDoesNoHarm", e.manifest)
		t.Run("D3_LoadBalancerAnswersOnTheLAN", e.loadBalancer)
		t.Run("D3_ClientOutOfTheSourceRangesIsNotServed", e.ranges)
		t.Run("D4_HeadlessNameHasAllPods", e.headless)
		t.Run("D5_ExternalNameIsAnAlias", e.externalName)
		t.Run("D6_ServiceWithoutASelectorBalancesOverServersOutside", e.selectorless)
		t.Run("D7_IngressChoosesByHostAndPath", e.ingress)
		t.Run("D7_WebSocketOverHTTPS", e.webSocket)
		t.Run("D8_DeleteRemovesAll", e.remove)
		w.Kubectl(t, "delete", "configmap", "config", "-n", "metallb-system", "--ignore-not-found")
	})
}

// ways are the steps of article D.
type ways struct {
	w *world.World
	s *source
}

const (
	applyExternalIP   = "kubectl apply -f sample-deployment.yaml -f sample-externalip.yaml"
	deleteExternalIP  = "kubectl delete -f sample-externalip.yaml"
	applySampleNP     = "kubectl apply -f sample-nodeport.yaml"
	applyStatefulSet  = "kubectl apply -f sample-statefulset-headless.yaml"
	applyExternalName = "kubectl apply -f sample-externalname.yaml"
	applyNoSelector   = "kubectl apply -f sample-none-selector.yaml"
	digInAPod         = "kubectl run --image=centos:7 --restart=Never --rm -i testpod -- dig "
	deleteAll         = "kubectl delete -f sample-externalip.yaml -f sample-deployment.yaml -f sample-nodeport.yaml -f sample-lb.yaml " +
		"-f sample-statefulset-headless.yaml -f sample-headless.yaml -f sample-none-selector.yaml -f sample-externalname.yaml"
)

// sample are the pods of the Deployment, which say their names.
func (e ways) sample(t *testing.T) []pod {
	t.Helper()
	first := !e.s.done[applySample]
	e.s.once(t, e.w, applySample)
	all := readyPods(t, e.w, "default", "app=sample-app,pod-template-hash", 3)
	if first {
		e.s.shell(t, e.w, sayHostnames)
	}
	return all
}

// onLAN asks for a page from the network around the nodes.
func (e ways) onLAN(address string) func() world.Result {
	return func() world.Result { return e.w.OnLAN("curl", "-s", "-m", "3", "http://"+address) }
}

func (e ways) externalIP(t *testing.T) {
	all := e.sample(t)
	e.s.shell(t, e.w, applyExternalIP)
	out := e.s.shell(t, e.w, "kubectl get pod -o=wide")
	wantRow(t, out, "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES")
	nodes := map[string]int{}
	for _, p := range all {
		wantRow(t, out, p.Name, "2/2", "Running", "0", `\S+`, regexp.QuoteMeta(p.IP.String()), p.Node, "<none>", "<none>")
		nodes[p.Node]++
	}
	wantKeys(t, "nodes with pods", nodes, "raspi002", "raspi003")
	wantRow(t, e.s.shell(t, e.w, "kubectl get service"), "sample-externalip", "ClusterIP", anAddr, `192\.168\.3\.33`, "8080/TCP", `\S+`)
	wantAll(t, all, e.onLAN("192.168.3.33:8080"))
	r := e.w.Shell("/", "minato explain 192.168.3.33:8080 --from lan")
	wantText(t, r.Output(), "default/sample-externalip, its ExternalIP", "seen as 192.168.3.33", "delivered")
	for _, p := range all {
		wantText(t, r.Stdout, p.IP.String()+":80 pod default/"+p.Name+" on "+p.Node)
	}
}

func (e ways) nodePort(t *testing.T) {
	all := e.sample(t)
	e.w.Shell(e.s.dir, applyExternalIP)
	e.s.shell(t, e.w, deleteExternalIP)
	const curlRefused = 7
	world.Eventually(t, netTime, func() error {
		if r := e.onLAN("192.168.3.33:8080")(); r.Code() != curlRefused {
			return fmt.Errorf("an externalIP that is gone is to be refused, as by a node without Services: %q (%v)", r.Output(), r.Err)
		}
		return nil
	})
	e.s.once(t, e.w, applySampleNP)
	wantRow(t, e.s.shell(t, e.w, "kubectl get service"), "sample-nodeport", "NodePort", anAddr, "<none>", "8080:30080/TCP", `\S+`)
	for _, node := range []string{"192.168.3.32", "192.168.3.33", "192.168.3.34"} {
		wantAll(t, all, e.onLAN(node+":30080"))
	}
	ip := clusterIP(t, e.w, "default", "sample-nodeport")
	wantAll(t, all, func() world.Result { return e.w.OnNode("raspi001", "curl", "-s", "-m", "3", ip+":8080") })
}

func (e ways) nodePortRange(t *testing.T) {
	e.s.once(t, e.w, applySampleNP)
	r := e.w.Shell(e.s.dir, "sed 's/nodePort: 30080/nodePort: 29999/' sample-nodeport.yaml | kubectl apply -f -")
	if r.Err == nil {
		t.Errorf("port 29999 is accepted: %s", r.Output())
	}
	wantText(t, r.Stderr, `The Service "sample-nodeport" is invalid: spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. `+
		"The range of valid ports is 30000-32767")
}

// answers are the resource records of a dig's answer, as "NAME TTL IN TYPE VALUE", sorted.
func answers(output string) []string {
	_, section, _ := strings.Cut(output, ";; ANSWER SECTION:\n")
	section, _, _ = strings.Cut(section, "\n\n")
	var all []string
	for _, line := range strings.Split(strings.TrimSpace(section), "\n") {
		if line != "" {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(all)
	return all
}

// wantAnswers runs the article's dig, in a pod of its own that is gone afterwards, until it answers so.
func (e ways) wantAnswers(t *testing.T, command string, want []string) {
	t.Helper()
	slices.Sort(want)
	world.Eventually(t, netTime, func() error {
		r := e.w.Shell(e.s.dir, command)
		if r.Err != nil {
			return fmt.Errorf("%s: %w\n%s", command, r.Err, r.Output())
		}
		if diff := cmp.Diff(want, answers(strings.ReplaceAll(r.Stdout, "\r", ""))); diff != "" {
			return fmt.Errorf("answers (-want +got):\n%s\n%s", diff, r.Output())
		}
		return nil
	})
	world.Eventually(t, netTime, func() error {
		if slices.Contains(e.w.Sandboxes(t), "default/testpod") {
			return fmt.Errorf("the container runtime still runs testpod")
		}
		return nil
	})
}

func (e ways) headless(t *testing.T) {
	e.sample(t)
	e.s.once(t, e.w, applyStatefulSet)
	e.w.Must(t, "kubectl", "apply", "-f", e.s.dir+"/sample-headless.yaml") // the article shows the file alone
	wantRow(t, e.w.Kubectl(t, "get", "service", "sample-headless"), "sample-headless", "ClusterIP", "None", "<none>", "80/TCP", `\S+`)
	all := readyPods(t, e.w, "default", "app=sample-app", 6)
	const name = "sample-headless.default.svc.cluster.local"
	var want []string
	own := map[string]netip.Addr{}
	for _, p := range all {
		want = append(want, name+". 5 IN A "+p.IP.String())
		own[p.Name] = p.IP
	}
	e.wantAnswers(t, e.s.line(t, digInAPod+name), want)
	const first = "sample-statefulset-headless-0"
	e.wantAnswers(t, digInAPod+first+"."+name, []string{first + "." + name + ". 5 IN A " + own[first].String()})
	e.w.Must(t, "kubectl", "delete", "-f", e.s.dir+"/sample-headless.yaml", "-f", e.s.dir+"/sample-statefulset-headless.yaml")
}

func (e ways) externalName(t *testing.T) {
	e.s.once(t, e.w, applyExternalName)
	wantRow(t, e.w.Kubectl(t, "get", "service", "sample-externalname"), "sample-externalname", "ExternalName", "<none>", `example\.com`, "<none>", `\S+`)
	const name = "sample-externalname.default.svc.cluster.local"
	// The lifetime of the target is what its own server says, at most.
	dig := e.s.line(t, digInAPod+name)
	wantAlias := func(target, addr string) {
		t.Helper()
		world.Eventually(t, netTime, func() error {
			r := e.w.Shell(e.s.dir, dig)
			for _, want := range []string{
				regexp.QuoteMeta(name) + `\.\s+5\s+IN\s+CNAME\s+` + regexp.QuoteMeta(target) + `\.`,
				regexp.QuoteMeta(target) + `\.\s+\d+\s+IN\s+A\s+` + regexp.QuoteMeta(addr),
			} {
				if !regexp.MustCompile(`(?m)^` + want + `\s*$`).MatchString(r.Stdout) {
					return fmt.Errorf("no %q in (%v):\n%s", want, r.Err, r.Output())
				}
			}
			return nil
		})
	}
	wantAlias("example.com", netnstest.FarAddr)
	e.w.Must(t, "sh", "-c", "sed 's/externalName: example.com/externalName: example.net/' "+e.s.dir+"/sample-externalname.yaml | kubectl apply -f -")
	wantAlias("example.net", world.NetAddr)
}

func (e ways) selectorless(t *testing.T) {
	e.w.Internet.Own(t, "172.217.31.164")
	e.w.Internet.Own(t, "172.217.31.165")
	e.s.once(t, e.w, applyNoSelector)
	ip := clusterIP(t, e.w, "default", "sample-none-selector")
	wantRow(t, e.s.shell(t, e.w, "kubectl get service"), "sample-none-selector", "ClusterIP", regexp.QuoteMeta(ip), "<none>", "8080/TCP", `\S+`)
	var out string
	world.Eventually(t, netTime, func() error {
		out = e.s.shell(t, e.w, "kubectl describe svc sample-none-selector")
		if !regexp.MustCompile(`(?m)^Endpoints:\s+172\.217\.31\.16(4:80,172\.217\.31\.165|5:80,172\.217\.31\.164):80$`).MatchString(out) {
			return fmt.Errorf("not both endpoints in:\n%s", out)
		}
		return nil
	})
	for field, value := range map[string]string{"Type": "ClusterIP", "IP": regexp.QuoteMeta(ip), "Port": `<unset>\s+8080/TCP`, "TargetPort": "80/TCP"} {
		wantRow(t, out, field+":", value)
	}
	curl := e.s.line(t, "curl "+ip+":8080")
	servers := map[string]int{}
	world.Eventually(t, netTime, func() error {
		r := e.w.OnNode("raspi001", strings.Fields(curl+" -s -m 3 -D -")...)
		at := regexp.MustCompile(`(?m)^Server: (\S+)\s*$`).FindStringSubmatch(r.Stdout)
		if at == nil {
			return fmt.Errorf("no answer: %v\n%s", r.Err, r.Output())
		}
		if servers[at[1]]++; len(servers) < 2 {
			return fmt.Errorf("only %v answers", servers)
		}
		return nil
	})
	wantKeys(t, "servers", servers, "172.217.31.164:80", "172.217.31.165:80")
}

func (e ways) remove(t *testing.T) {
	all := e.sample(t)
	for _, file := range strings.Split(strings.TrimPrefix(deleteAll, "kubectl delete -f "), " -f ") {
		e.w.Must(t, "kubectl", "apply", "-f", e.s.dir+"/"+file)
	}
	ip := clusterIP(t, e.w, "default", "sample-nodeport")
	// The controller may be quicker than kubectl to delete the Endpoints of a Service that is gone, on any cluster.
	gone := regexp.MustCompile(`(?m)^(Warning: v1 Endpoints is deprecated.*|Error from server \(NotFound\):.* endpoints "sample-none-selector" not found)\n`)
	r := e.w.Shell(e.s.dir, e.s.line(t, deleteAll))
	if errs := gone.ReplaceAllString(r.Stderr, ""); errs != "" || strings.Count(r.Stdout, " deleted") < 8 {
		t.Errorf("%s: %v\n%s", deleteAll, r.Err, r.Output())
	}
	world.Eventually(t, podTime, func() error {
		left := e.w.Kubectl(t, "get", "service,endpoints,endpointslice,pod,statefulset,deployment", "-o", "name")
		left = strings.Join(slices.DeleteFunc(strings.Fields(left), func(name string) bool { return strings.HasSuffix(name, "/kubernetes") }), " ")
		if left != "" {
			return fmt.Errorf("still there: %s", left)
		}
		for _, p := range all {
			if slices.Contains(e.w.Sandboxes(t), "default/"+p.Name) {
				return fmt.Errorf("the container runtime still runs %s", p.Name)
			}
		}
		if r := e.w.OnNode("raspi002", "curl", "-s", "-m", "2", ip+":8080"); r.Err == nil {
			return fmt.Errorf("the ClusterIP still answers: %q", r.Stdout)
		}
		return nil
	})
	for _, address := range []string{"192.168.3.33:8080", "192.168.3.34:30080", "192.168.3.100:8080"} {
		if r := e.onLAN(address)(); r.Err == nil {
			t.Errorf("%s still answers: %q", address, r.Stdout)
		}
	}
}
