//go:build linux

package walkthrough

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"minato/internal/netns/netnstest"
	"minato/test/world"
)

// control is a Service that must work whatever else is applied. Its server is outside, so it needs no pods.
const control = `
apiVersion: v1
kind: Service
metadata: {name: control}
spec: {type: LoadBalancer, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: control-1, labels: {kubernetes.io/service-name: control}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [` + netnstest.InternetAddr + `]}]
`

const balancedService = `
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, ports: [{port: 80}]}
`

func poolConfig(config string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: metallb-system, name: config}\ndata:\n  config: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(config), "\n", "\n    ") + "\n"
}

// badInput is something wrong, and who says so: the API, which then has nothing of it, or an Event about an object.
type badInput struct {
	name    string
	yaml    string
	refused string   // by the API, in these words
	object  string   // KIND/NAME that the Event is about
	says    []string // the Event
	also    func(t *testing.T, w *world.World)
}

var badInputs = []badInput{
	{
		name: "AServiceOfTheWrongShape", refused: `unknown field "spec.port"`,
		yaml: "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {port: 80}\n",
	}, {
		name: "APortThatIsNoNumber", refused: "cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
		yaml: "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: http}]}\n",
	}, {
		name: "ANodePortThatAnotherServiceHas", refused: "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
		yaml: "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}\n",
	}, {
		name: "ATLSSecretWithoutAKey", refused: `data[tls.key]: Required value`,
		yaml: "apiVersion: v1\nkind: Secret\nmetadata: {name: half}\ntype: kubernetes.io/tls\nstringData: {tls.crt: x}\n",
	}, {
		name: "PoolsOfTheWrongShape", object: "ConfigMap/config", says: []string{"InvalidConfig", `line 4: unknown key "addresess"`, "Services keep what they have"},
		yaml: poolConfig("address-pools:\n- name: default\n  protocol: layer2\n  addresess: [172.30.0.210-172.30.0.220]"),
	}, {
		name: "APoolOutsideTheLAN", object: "ConfigMap/config", says: []string{"PoolOutsideNetwork", "192.0.2.0-192.0.2.255"},
		yaml: poolConfig("address-pools:\n- name: default\n  protocol: layer2\n  addresses: [172.30.0.200-172.30.0.201, 192.0.2.0/24]"),
	}, {
		name: "APoolThatIsUsedUp", object: "Service/balanced", says: []string{"AllocationFailed", "Failed to allocate IP for"},
		yaml: poolConfig("address-pools:\n- name: default\n  protocol: layer2\n  addresses: [172.30.0.200/32]") + "---" + balancedService,
	}, {
		name: "TwoServicesWithOneExternalAddress", object: "Service/younger", says: []string{"AddressTaken", "Service default/elder", "192.0.2.80:80/tcp"},
		yaml: "apiVersion: v1\nkind: Service\nmetadata: {name: elder}\nspec: {externalIPs: [192.0.2.80], ports: [{port: 80}]}\n---\n" +
			"apiVersion: v1\nkind: Service\nmetadata: {name: younger}\nspec: {externalIPs: [192.0.2.80], ports: [{port: 80}]}\n",
	}, {
		name: "AnIngressToAServiceThatIsNotThere", object: "Ingress/lost", says: []string{"NotAsWritten", "create Service default/nowhere"},
		yaml: "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: lost}\nspec: {defaultBackend: {service: {name: nowhere, port: {number: 80}}}}\n",
	}, {
		name: "AnIngressToASecretWithoutAKey", object: "Ingress/bare", says: []string{"NotAsWritten", "create Secret opaque", "kubernetes.io/tls"},
		yaml: "apiVersion: v1\nkind: Secret\nmetadata: {name: opaque}\nstringData: {tls.crt: x}\n---\n" +
			"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: bare}\nspec:\n  tls: [{hosts: [bare.example.com], secretName: opaque}]\n" +
			"  rules: [{host: bare.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: control, port: {number: 80}}}}]}}]\n",
		also: func(t *testing.T, w *world.World) { // the site works, with a certificate that nobody trusts
			world.Eventually(t, podTime, func() error {
				r := w.OnLAN("curl", "-sSk", "-m", "3", "--connect-to", "::172.30.0.11:", "https://bare.example.com/")
				if !strings.Contains(r.Stdout, "the internet greets") {
					return fmt.Errorf("%v: %s", r.Err, r.Output())
				}
				return nil
			})
		},
	},
}

// Whoever writes something wrong is told what, where they look for it, and nobody else notices.
func TestBadInputIsToldAndDisturbsNobody(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{}, IPv4: "what is wrong are pools and addresses of IPv4"})
	apply := func(yaml string) world.Result {
		return w.Shell("/", "kubectl apply -f - <<'END'\n"+yaml+"\nEND")
	}
	if r := apply(control); r.Err != nil {
		t.Fatal(r.Output())
	}
	controlled := func(t *testing.T) {
		t.Helper()
		world.Eventually(t, podTime, func() error {
			addr := w.Kubectl(t, "get", "service", "control", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
			for _, at := range []string{addr, "172.30.0.11:30080", "172.30.0.13:30080"} {
				if r := w.OnLAN("curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", "http://"+at); r.Stdout != fmt.Sprint(http.StatusOK) {
					return fmt.Errorf("%s: %v %s", at, r.Err, r.Output())
				}
			}
			return nil
		})
	}
	controlled(t)
	for _, bad := range badInputs {
		t.Run(bad.name, func(t *testing.T) {
			r := apply(bad.yaml)
			t.Cleanup(func() {
				w.Shell("/", "kubectl delete --ignore-not-found -f - <<'END'\n"+bad.yaml+"\nEND")
			})
			if bad.refused != "" {
				if r.Err == nil || !strings.Contains(r.Stderr, bad.refused) {
					t.Errorf("want a refusal with %q, got %v\n%s", bad.refused, r.Err, r.Output())
				}
			} else if r.Err != nil {
				t.Fatal(r.Output())
			} else {
				wantEvent(t, w, bad.object, bad.says)
			}
			if bad.also != nil {
				bad.also(t, w)
			}
			controlled(t)
		})
	}
}

// wantEvent waits for a warning about an object with all these words.
func wantEvent(t *testing.T, w *world.World, object string, words []string) {
	t.Helper()
	world.Eventually(t, podTime, func() error {
		out := w.Kubectl(t, "get", "events", "-A", "--field-selector", "type=Warning", "-o", `jsonpath={range .items[*]}{.involvedObject.kind}/{.involvedObject.name} {.reason} {.message}{"\n"}{end}`)
	events:
		for _, line := range strings.Split(out, "\n") {
			if !strings.HasPrefix(line, object+" ") {
				continue
			}
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue events
				}
			}
			return nil
		}
		return fmt.Errorf("no Event about %s with %q among:\n%s", object, words, out)
	})
}
