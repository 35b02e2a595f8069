//go:build linux

package walkthrough

import (
	"fmt"
	"strings"
	"testing"

	"minato/test/world"
)

// A Service without a selector, so that the test decides on which node its endpoints are.
const localService = `
kubectl apply -f - <<'END'
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: local-1, labels: {kubernetes.io/service-name: local}}
addressType: TYPE
ports: [{port: 8080}]
endpoints:
- {addresses: [POD1], nodeName: node1, conditions: {ready: true}}
- {addresses: [POD2], nodeName: node2, conditions: {ready: false, serving: true, terminating: true}}
END`

// What a load balancer in front of the nodes is told, and what becomes of packets to ports that nobody has.
func TestLoadBalancersOutside(t *testing.T) {
	w := world.Start(t, world.Config{})
	a := world.Default()
	local := strings.NewReplacer("TYPE", a.Type, "POD1", `"`+a.Pod(1, 99)+`"`, "POD2", `"`+a.Pod(2, 99)+`"`).Replace(localService)
	if r := w.Shell("/", local); r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, r.Output())
	}
	port := w.Kubectl(t, "get", "service", "local", "-o", "jsonpath={.spec.healthCheckNodePort}")
	nodes := strings.Fields(w.Kubectl(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.status.addresses[0].address} {end}`))
	ask := func(url string) (status string, output string) {
		r := w.OnLAN("curl", "-s", "-m", "3", "-w", "\n%{http_code}", url)
		i := strings.LastIndex(r.Stdout, "\n")
		return r.Stdout[i+1:], r.Output()
	}
	for i, want := range []string{"200", "503", "503"} {
		world.Eventually(t, podTime, func() error {
			if status, out := ask("http://" + world.At(nodes[i], port)); status != want || !strings.Contains(out, `"serviceProxyHealthy": true`) {
				return fmt.Errorf("node%d answers %s, want %s:\n%s", i+1, status, want, out)
			}
			return nil
		})
		if status, out := ask("http://" + world.At(nodes[i], 10256) + "/healthz"); status != "200" || !strings.Contains(out, `"nodeEligible":true`) {
			t.Errorf("/healthz of node%d: %s", i+1, out)
		}
	}
	addr := w.Kubectl(t, "get", "service", "local", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	if r := w.OnLAN("curl", "-sS", "-m", "2", "http://"+world.At(addr, 81)); !strings.Contains(r.Stderr, "timed out") {
		t.Errorf("a port that %s does not have: %v\n%s", addr, r.Err, r.Output())
	}
	w.Kubectl(t, "delete", "service", "local")
	world.Eventually(t, podTime, func() error {
		if status, out := ask("http://" + world.At(nodes[0], port)); status != "000" {
			return fmt.Errorf("still answered: %s", out)
		}
		return nil
	})
}
