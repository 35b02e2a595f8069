//go:build linux

package walkthrough

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/test/world"
)

var serviceKinds = article{
	file:    "000_4bca72646a7de823.txt",
	sha256:  "051cf4a086798917119eff693a489f6932fb61ec2e7ffb59ba2a97cc4f10d0dc",
	command: regexp.MustCompile(`^(?:\$|/ #) (.+)`),
	yaml:    []yamlBlock{{name: "deploy.yaml"}, {name: "svc.yaml"}, {name: "svc-np.yaml"}, {name: "svc-headless.yaml"}},
}

// anAddr is a pattern of any ClusterIP.
var anAddr = world.Default().Service

func TestA_ServiceKinds(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{"nginx", "alpine"}})
	fromEach(t, "000-service-kinds", serviceKinds, func(t *testing.T, s *source) {
		k := kinds{w, s}
		t.Run("A1_DeploymentRunsThreePods", k.deployment)
		t.Run("A2_ServiceHasAClusterIP", k.clusterIP)
		t.Run("A3_NodePortOpensOnEveryNode", k.nodePort)
		t.Run("A4_PodFindsServicesByEnvironmentAndName", k.discovery)
		t.Run("A5_ServiceVerbPrintsAURLThatOpens", k.serviceVerb)
		t.Run("A6_HeadlessServiceNamesPods", k.headless)
		if !s.fromArticle() {
			t.Run("A6_UnreadyPodsAreNamedOnRequest", k.unready)
			t.Run("A7_EveryFieldDoesWhatItSays", func(t *testing.T) { fields{k}.run(t) })
		}
		w.Kubectl(t, "delete", "deployment,pod", "--all")
		w.Kubectl(t, "delete", "service", "--field-selector", "metadata.name!=kubernetes")
	})
}

// kinds are the steps of article A.
type kinds struct {
	w *world.World
	s *source
}

const (
	applyDeploy   = "kubectl apply -f deploy.yaml"
	applySvc      = "kubectl apply -f svc.yaml"
	applyNodePort = "kubectl apply -f svc-np.yaml"
	applyHeadless = "kubectl apply -f svc-headless.yaml"
	runAlpine     = "kubectl run alpine -it --rm --image alpine -- ash"
)

func (k kinds) nginx(t *testing.T) []pod {
	t.Helper()
	k.s.once(t, k.w, applyDeploy)
	return readyPods(t, k.w, "default", "app=nginx", 3)
}

func (k kinds) deployment(t *testing.T) {
	k.nginx(t)
	wantRow(t, k.s.shell(t, k.w, "kubectl get deploy"), "nginx", "3/3", "3", "3", `\S+`)
	out := k.s.shell(t, k.w, "kubectl get po")
	rows := regexp.MustCompile(`(?m)^nginx-\S+-\S+\s+1/1\s+Running\s+0\s+\S+$`).FindAllString(out, -1)
	if len(rows) != 3 {
		t.Errorf("%d pods run, want 3:\n%s", len(rows), out)
	}
}

func (k kinds) clusterIP(t *testing.T) {
	k.nginx(t)
	k.s.once(t, k.w, applySvc)
	out := k.s.shell(t, k.w, "kubectl get svc")
	wantRow(t, out, "kubernetes", "ClusterIP", world.Default().API, "<none>", "443/TCP", `\S+`)
	wantRow(t, out, "nginx", "ClusterIP", anAddr, "<none>", "80/TCP", `\S+`)
	all := k.s.shell(t, k.w, "kubectl get all")
	wantRow(t, all, `pod/nginx-\S+`, "1/1", "Running", "0", `\S+`)
	wantRow(t, all, "service/nginx", "ClusterIP", anAddr, "<none>", "80/TCP", `\S+`)
	wantRow(t, all, "deployment.apps/nginx", "3/3", "3", "3", `\S+`)
	wantRow(t, all, `replicaset.apps/nginx-\S+`, "3", "3", "3", `\S+`)
}

func (k kinds) nodePort(t *testing.T) {
	all := k.nginx(t)
	k.s.once(t, k.w, applyNodePort)
	wantRow(t, k.s.shell(t, k.w, "kubectl get svc"), "nginx-np", "NodePort", anAddr, "<none>", `80:3\d{4}/TCP`, `\S+`)
	port, err := strconv.Atoi(k.w.Kubectl(t, "get", "svc", "nginx-np", "-o", "jsonpath={.spec.ports[0].nodePort}"))
	if err != nil || port < 30000 || port > 32767 {
		t.Fatalf("node port %d (%v), want one of 30000-32767", port, err)
	}
	sayWho(t, k.w, "default", "", all)
	for n := range 3 {
		node := world.At(world.Default().Node(n+1), port)
		world.Eventually(t, netTime, func() error {
			r := k.w.OnLAN("curl", "-s", "-m", "3", "http://"+node+"/who")
			if !slices.Contains(podNames(all), strings.TrimSpace(r.Stdout)) {
				return fmt.Errorf("%s answers %q (%v), want the name of a pod", node, r.Output(), r.Err)
			}
			return nil
		})
	}
}

// alpine opens a shell in a new pod, which is gone when the test is over.
func (k kinds) alpine(t *testing.T) (*world.Terminal, func()) {
	t.Helper()
	term := k.w.Terminal(t, k.s.dir, k.s.line(t, runAlpine))
	term.Expect(t, podTime, "try pressing enter|/ # ")
	term.Type(t, "\n")
	term.Expect(t, netTime, "/ # ")
	return term, func() {
		t.Helper()
		term.Type(t, "exit\n")
		out, err := term.Wait(t, podTime)
		if err != nil || !strings.Contains(out, `pod "alpine" deleted`) {
			t.Errorf("leaving the shell: %v\n%s", err, out)
		}
		world.Eventually(t, podTime, func() error {
			if slices.Contains(k.w.Sandboxes(t), "default/alpine") {
				return fmt.Errorf("the container runtime still runs pod alpine")
			}
			return nil
		})
	}
}

func (k kinds) discovery(t *testing.T) {
	all := k.nginx(t)
	k.s.once(t, k.w, applySvc, applyNodePort)
	sayWho(t, k.w, "default", "", all)
	term, leave := k.alpine(t)
	defer leave()

	env := term.Do(t, k.s.line(t, "env"))
	ip := clusterIP(t, k.w, "default", "nginx")
	wantVariables(t, env, "KUBERNETES", world.Default().API, "443")
	wantVariables(t, env, "NGINX", ip, "80")
	wantVariables(t, env, "NGINX_NP", clusterIP(t, k.w, "default", "nginx-np"), "80")
	wantText(t, env, "\nKUBERNETES_SERVICE_PORT_HTTPS=443\n", "\nHOSTNAME=alpine\n")

	fetch := k.s.line(t, "wget -O - $NGINX_SERVICE_HOST")
	if world.OverIPv6() { // in a URL such an address stands in brackets, whoever types it
		fetch = "wget -O - [$NGINX_SERVICE_HOST]"
	}
	page := term.Do(t, fetch)
	wantText(t, page, "Connecting to "+world.InURL(ip), "<title>Welcome to nginx!</title>")
	names := term.Do(t, k.s.line(t, "nslookup nginx"))
	wantText(t, names, "nginx.default.svc.cluster.local")
	if diff := cmp.Diff([]string{ip}, lookedUp(names)); diff != "" {
		t.Errorf("address of nginx (-want +got):\n%s\n%s", diff, names)
	}
	wantText(t, term.Do(t, k.s.line(t, "wget -O - nginx")), "Connecting to nginx ("+world.InURL(ip), "<title>Welcome to nginx!</title>")
	who := term.Do(t, "wget -q -O - nginx/who")
	if !slices.ContainsFunc(podNames(all), func(name string) bool { return strings.Contains(who, name) }) {
		t.Errorf("who answers by name? got %q, want one of %q", who, podNames(all))
	}
}

// wantVariables checks the seven variables of a Service with one TCP port.
func wantVariables(t *testing.T, env, prefix, ip, port string) {
	t.Helper()
	url := "tcp://" + world.At(ip, port)
	for name, value := range map[string]string{
		"SERVICE_HOST":                ip,
		"SERVICE_PORT":                port,
		"PORT":                        url,
		"PORT_" + port + "_TCP":       url,
		"PORT_" + port + "_TCP_PROTO": "tcp",
		"PORT_" + port + "_TCP_PORT":  port,
		"PORT_" + port + "_TCP_ADDR":  ip,
	} {
		wantText(t, env, fmt.Sprintf("\n%s_%s=%s\n", prefix, name, value))
	}
}

func (k kinds) serviceVerb(t *testing.T) {
	all := k.nginx(t)
	k.s.once(t, k.w, applyNodePort)
	sayWho(t, k.w, "default", "", all)
	wantRow(t, k.s.shell(t, k.w, "kubectl get svc/nginx-np"), "nginx-np", "NodePort", anAddr, "<none>", `80:3\d{4}/TCP`, `\S+`)
	port := k.w.Kubectl(t, "get", "svc", "nginx-np", "-o", "jsonpath={.spec.ports[0].nodePort}")
	url := k.s.shell(t, k.w, "minato service nginx-np --url")
	if want := "http://" + world.At(world.Default().Node(1), port) + "\n"; url != want {
		t.Errorf("got %q, want %q", url, want)
	}
	if who := k.w.Must(t, "curl", "-s", "-m", "3", strings.TrimSpace(url)+"/who"); !slices.Contains(podNames(all), strings.TrimSpace(who)) {
		t.Errorf("%s answers %q, want the name of a pod", url, who)
	}
	// Without --url it opens a browser, for which this machine's would be the wrong one.
	bin := t.TempDir()
	if err := os.WriteFile(bin+"/xdg-open", []byte("#!/bin/sh\necho opened $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := k.w.Shell("/", "PATH="+bin+":$PATH minato service nginx-np")
	if want := url + "opened " + url; r.Stdout != want || r.Err != nil {
		t.Errorf("got %q (%v), want %q", r.Output(), r.Err, want)
	}
	for name, says := range map[string]string{"kubernetes": "type: NodePort", "nginx-mp": "did you mean nginx-np?"} {
		if r := k.w.Shell("/", "minato service "+name+" --url"); r.Err == nil || !strings.Contains(r.Stderr, says) {
			t.Errorf("minato service %s: %q (%v), want an error with %q", name, r.Output(), r.Err, says)
		}
	}
}

func (k kinds) headless(t *testing.T) {
	all := k.nginx(t)
	k.s.once(t, k.w, applyHeadless)
	wantRow(t, k.s.shell(t, k.w, "kubectl get svc/nginx-headless"), "nginx-headless", "ClusterIP", "None", "<none>", "<none>", `\S+`)
	term, leave := k.alpine(t)
	defer leave()
	var out string
	world.Eventually(t, netTime, func() error {
		out = term.Do(t, k.s.line(t, "nslookup nginx-headless"))
		if diff := cmp.Diff(podIPs(all), lookedUp(out)); diff != "" {
			return fmt.Errorf("addresses of nginx-headless (-want +got):\n%s\n%s", diff, out)
		}
		return nil
	})
	wantText(t, out, "nginx-headless.default.svc.cluster.local")
}

func (k kinds) unready(t *testing.T) {
	k.s.once(t, k.w, "kubectl apply -f not-ready.yaml")
	var ip string
	world.Eventually(t, podTime, func() error {
		ip = k.w.Kubectl(t, "get", "pod", "never-ready", "-o", "jsonpath={.status.podIP}")
		if ip == "" {
			return fmt.Errorf("pod never-ready has no address")
		}
		return nil
	})
	term, leave := k.alpine(t)
	defer leave()
	world.Eventually(t, netTime, func() error {
		if diff := cmp.Diff([]string{ip}, lookedUp(term.Do(t, "nslookup also-unready"))); diff != "" {
			return fmt.Errorf("addresses of also-unready (-want +got):\n%s", diff)
		}
		return nil
	})
	if got := lookedUp(term.Do(t, "nslookup ready-only")); len(got) != 0 {
		t.Errorf("addresses of ready-only: %q, want none", got)
	}
}
