//go:build linux

package walkthrough

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

// fields are the files of 000-service-kinds/fields: every field of a Service that article A lists.
type fields struct{ kinds }

func (f fields) run(t *testing.T) {
	sayWho(t, f.w, "default", "", f.nginx(t))
	t.Run("ClusterIPThatOneChooses", withIPv4(f.chosen))
	t.Run("TargetPortByNumberAndByName", f.ports)
	t.Run("SessionAffinityKeepsToOnePod", f.sticky)
	t.Run("ExternalIPs", withIPv4(f.externalIPs))
	t.Run("PolicyLocalKeepsTheClientsAddress", f.local)
	t.Run("LoadBalancerForAFewWithTheAddressThatOneChooses", withIPv4(f.loadBalancer))
	t.Run("ExternalName", f.externalName)
	t.Run("HealthCheckNodePortSaysWhichNodesHaveAPod", withIPv4(f.healthCheck))
	t.Run("WrongValuesGetKubernetesOwnMessages", withIPv4(f.wrong))
}

// withIPv4 is a step whose file has addresses of IPv4.
func withIPv4(step func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) {
		if world.OverIPv6() {
			t.Skip("the example has addresses of IPv4")
		}
		step(t)
	}
}

// apply takes one file into use, until the test ends.
func (f fields) apply(t *testing.T, file string) {
	t.Helper()
	f.s.shell(t, f.w, "kubectl apply -f fields/"+file)
	t.Cleanup(func() { f.s.shell(t, f.w, "kubectl delete --wait=false -f fields/"+file) })
}

// fromNode asks for the name of the pod that answers.
func (f fields) fromNode(address string) func() world.Result {
	return func() world.Result { return f.w.OnNode("node1", "curl", "-s", "-m", "3", address+"/who") }
}

func (f fields) chosen(t *testing.T) {
	f.apply(t, "cluster-ip.yaml")
	wantRow(t, f.w.Kubectl(t, "get", "svc", "chosen-address"), "chosen-address", "ClusterIP", `10\.96\.77\.77`, "<none>", "80/TCP", `\S+`)
	wantAll(t, f.nginx(t), f.fromNode("10.96.77.77"))
	r := f.w.OnLAN("kubectl", "create", "service", "clusterip", "second", "--clusterip=10.96.77.77", "--tcp=80")
	wantText(t, r.Stderr, "failed to allocate IP 10.96.77.77: provided IP is already allocated")
}

func (f fields) ports(t *testing.T) {
	f.apply(t, "ports.yaml")
	p := readyPods(t, f.w, "default", "app=many-ports", 1)
	sayWho(t, f.w, "default", "", p)
	ip := clusterIP(t, f.w, "default", "many-ports")
	wantAll(t, p, f.fromNode(world.At(ip, 8080)))
	wantAll(t, p, f.fromNode(world.At(ip, 8081)))
	for protocol, port := range map[string]string{"udp": "8082", "sctp": "8083"} {
		r := f.w.Verb("explain", world.At(ip, port), "--protocol", protocol, "--from", "node/node1")
		if want := world.At(p[0].IP.String(), strings.Replace(port, "80", "", 1)); r.Err != nil || !strings.Contains(r.Stdout, "100.0%  "+want) {
			t.Errorf("%s to port %s: %v, want it to reach %s:\n%s", protocol, port, r.Err, want, r.Output())
		}
	}
}

func (f fields) sticky(t *testing.T) {
	f.apply(t, "session-affinity.yaml")
	ip := clusterIP(t, f.w, "default", "sticky")
	served := map[string]bool{}
	world.Eventually(t, netTime, func() error { return f.fromNode(world.InURL(ip))().Err })
	for range requests {
		served[f.fromNode(world.InURL(ip))().Stdout] = true
	}
	if len(served) != 1 {
		t.Errorf("one client was served by %v", served)
	}
	wantText(t, f.w.Verb("explain", world.At(ip, 80), "--from", "node/node1").Stdout, "which the client keeps by session affinity", "and for 1m0s after each new connection")
	wantText(t, f.w.Verb("flows", "svc/sticky").Stdout, world.InURL(world.Default().Node(1))+":", "default/sticky "+world.At(ip, 80), "inside, policy Cluster", "session affinity 1m0s")
}

func (f fields) externalIPs(t *testing.T) {
	f.apply(t, "external-ips.yaml")
	wantRow(t, f.w.Kubectl(t, "get", "svc", "outside-address"), "outside-address", "ClusterIP", anAddr, `172\.30\.0\.11`, "8090/TCP", `\S+`)
	wantAll(t, f.nginx(t), func() world.Result { return f.w.OnLAN("curl", "-s", "-m", "3", "172.30.0.11:8090/who") })
}

func (f fields) local(t *testing.T) {
	all, host := f.nginx(t), world.Default().Host
	f.apply(t, "traffic-policy.yaml")
	for _, p := range all {
		addr := f.w.Kubectl(t, "get", "node", p.Node, "-o", "jsonpath={.status.addresses[0].address}")
		on := slices.DeleteFunc(slices.Clone(all), func(q pod) bool { return q.Node != p.Node })
		wantAll(t, on, func() world.Result { return f.w.OnLAN("curl", "-s", "-m", "3", world.At(addr, 30090)+"/who") })
		world.Eventually(t, netTime, func() error {
			if log := f.w.Kubectl(t, "logs", p.Name); !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(host) + ` - `).MatchString(log) {
				return fmt.Errorf("%s has not seen %s, the client's own address:\n%s", p.Name, host, log)
			}
			return nil
		})
	}
}

func (f fields) loadBalancer(t *testing.T) {
	f.apply(t, "load-balancer.yaml")
	world.Eventually(t, netTime, func() error {
		out := f.w.Kubectl(t, "get", "svc", "balanced")
		if !regexp.MustCompile(`(?m)^balanced\s+LoadBalancer\s+` + anAddr + `\s+172\.30\.0\.222\s+80:3\d{4}/TCP\s`).MatchString(out) {
			return fmt.Errorf("no row of balanced with its address:\n%s", out)
		}
		return nil
	})
	who := func(flags ...string) world.Result {
		return f.w.OnLAN(append([]string{"curl", "-s", "-m", "2", "172.30.0.222/who"}, flags...)...)
	}
	world.Eventually(t, netTime, func() error {
		if r := who(); !slices.Contains(podNames(f.nginx(t)), strings.TrimSpace(r.Stdout)) {
			return fmt.Errorf("answer %q (%v), want the name of a pod", r.Output(), r.Err)
		}
		return nil
	})
	const curlTimedOut = 28
	if r := who("--interface", netnstest.HostAddr); r.Code() != curlTimedOut {
		t.Errorf("a client outside of 172.30.0.0/24 gets %q (%v), want silence", r.Output(), r.Err)
	}
}

// healthCheck asks as a balancer before the nodes does (kube-proxy's answers: pkg/proxy/healthcheck), while the Service
// has three pods and when it has one, which leaves two nodes without.
func (f fields) healthCheck(t *testing.T) {
	f.apply(t, "load-balancer.yaml")
	f.wantHealth(t, f.nginx(t))
	f.w.Kubectl(t, "scale", "deployment", "nginx", "--replicas=1")
	f.wantHealth(t, readyPods(t, f.w, "default", "app=nginx", 1))
	f.w.Kubectl(t, "scale", "deployment", "nginx", "--replicas=3")
}

func (f fields) wantHealth(t *testing.T, all []pod) {
	t.Helper()
	local := map[string]int{}
	for _, p := range all {
		local[p.Node]++
	}
	for i, node := range []string{"node1", "node2", "node3"} {
		code := 503
		if local[node] > 0 {
			code = 200
		}
		want := fmt.Sprintf(`{"service":{"namespace":"default","name":"balanced"},"localEndpoints":%d,"serviceProxyHealthy":true}%d`, local[node], code)
		world.Eventually(t, netTime, func() error {
			r := f.w.OnLAN("curl", "-s", "-m", "3", "-w", "%{http_code}", fmt.Sprintf("http://172.30.0.%d:32222/", 11+i))
			if got := strings.Join(strings.Fields(r.Stdout), ""); got != want {
				return fmt.Errorf("%s: got %q (%v), want %q", node, got, r.Err, want)
			}
			return nil
		})
	}
}

func (f fields) externalName(t *testing.T) {
	f.apply(t, "external-name.yaml")
	term, leave := f.alpine(t)
	defer leave()
	world.Eventually(t, netTime, func() error {
		out := term.Do(t, "nslookup elsewhere")
		if !slices.Contains(lookedUp(out), world.Default().Far) || !strings.Contains(out, "www.example.com") {
			return fmt.Errorf("elsewhere is not www.example.com with its address:\n%s", out)
		}
		return nil
	})
}

func (f fields) wrong(t *testing.T) {
	for spec, says := range map[string]string{
		`{"ports":[{"port":70000}]}`:                                                                                         "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
		`{"ports":[{"port":80,"protocol":"HTTP"}]}`:                                                                          `spec.ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"`,
		`{"ports":[{"port":80},{"port":81}]}`:                                                                                "spec.ports[0].name: Required value",
		`{"ports":[{"port":80,"targetPort":"Not_a_name"}]}`:                                                                  `spec.ports[0].targetPort: Invalid value: "Not_a_name"`,
		`{"type":"Sideways","ports":[{"port":80}]}`:                                                                          `spec.type: Unsupported value: "Sideways"`,
		`{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}`:                                                            "provided port is not in the valid range. The range of valid ports is 30000-32767",
		`{"clusterIP":"192.0.2.1","ports":[{"port":80}]}`:                                                                    "failed to allocate IP 192.0.2.1: the provided network does not match the current range",
		`{"sessionAffinity":"Cookie","ports":[{"port":80}]}`:                                                                 `spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"`,
		`{"externalIPs":["nonsense"],"ports":[{"port":80}]}`:                                                                 `spec.externalIPs[0]: Invalid value: "nonsense"`,
		`{"externalTrafficPolicy":"Local","ports":[{"port":80}]}`:                                                            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
		`{"type":"NodePort","healthCheckNodePort":32000,"ports":[{"port":80}]}`:                                              "spec.healthCheckNodePort: Invalid value: 32000",
		`{"type":"LoadBalancer","loadBalancerSourceRanges":["x"],"ports":[{"port":80}]}`:                                     `spec.LoadBalancerSourceRanges[0]: Invalid value: "x": must be a valid CIDR value`,
		`{"type":"ExternalName"}`:                                                                                            "spec.externalName: Required value",
		`{"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":86401}},"ports":[{"port":80}]}`: "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401",
	} {
		object := fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"wrong"},"spec":%s}`, spec)
		r := f.w.OnLAN("sh", "-c", `printf %s "$1" | kubectl create -f -`, "-", object)
		if r.Err == nil || !strings.Contains(r.Stderr, says) {
			t.Errorf("%s:\ngot  %swant %s", spec, r.Output(), says)
		}
	}
	if diff := cmp.Diff("", f.w.Kubectl(t, "get", "service", "wrong", "--ignore-not-found")); diff != "" {
		t.Errorf("a wrong Service is there: %s", diff)
	}
}
