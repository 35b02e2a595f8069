//go:build linux

package walkthrough

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"minato/test/world"
)

// dashboardObjects are a Service with two pods' worth of endpoints, one of which is not ready, and one that has none.
const dashboardObjects = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: TYPE
ports: [{port: 8080}]
endpoints:
- {addresses: ["POD1"], nodeName: node1, targetRef: {kind: Pod, namespace: default, name: web-a}}
- {addresses: ["POD2"], nodeName: node2, targetRef: {kind: Pod, namespace: default, name: web-b}}
- {addresses: ["POD3"], nodeName: node3, targetRef: {kind: Pod, namespace: default, name: web-c}, conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
`

// The page shows what there is, follows changes, and explains a connection between two things that are chosen, by
// mouse and by keyboard.
func TestDashboard(t *testing.T) {
	w := world.Start(t, world.Config{Images: []string{}})
	url := dashboard(t, w)
	if r := w.OnLAN("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", strings.Join(strings.Split(url, "/")[:3], "/")+"/state"); r.Stdout != "404" {
		t.Errorf("without the secret: %s", r.Output())
	}
	b := w.Browse(t, url, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
	b.Until(t, `document.querySelectorAll(".node > .thing").length == 3`)
	a := world.Default()
	objects := strings.NewReplacer("TYPE", a.Type, "POD1", a.Pod(1, 91), "POD2", a.Pod(2, 91), "POD3", a.Pod(3, 91)).Replace(dashboardObjects)
	if r := w.Shell("/", "kubectl apply -f - <<'END'\n"+objects+"\nEND"); r.Err != nil {
		t.Fatal(r.Output())
	}
	b.Until(t, `!!document.querySelector('[data-key="backend/default/web-c"]')`) // live, without loading anew
	b.Until(t, `document.getElementById("summary").textContent.includes("all applied")`)

	const service = `document.querySelector('[data-key="service/default/web"]')`
	b.Eval(t, `document.querySelector('[data-key="lan"]').click()`)
	b.Eval(t, service+".click()")
	b.Until(t, `document.getElementById("verdict").textContent == "dropped" || document.getElementById("verdict").textContent == "refused"`)
	b.Eval(t, `document.querySelector('[data-key="node/node1"]').click()`)
	b.Until(t, `document.getElementById("verdict").textContent == "delivered"`)
	if got := b.Eval(t, `[...document.querySelectorAll(".reached strong")].map(e => e.textContent).join(" ")`); got != "web-a web-b" {
		t.Errorf("marked as reached: %q", got)
	}
	if got := b.Eval(t, `document.querySelectorAll("#lines path").length`); got != "3" {
		t.Errorf("%s lines to three endpoints", got)
	}
	b.Screenshot(t, "dashboard")

	b.Key(t, "Escape")
	b.Eval(t, `document.querySelector('[data-key="node/node2"]').focus()`)
	b.Key(t, "Enter")
	b.Eval(t, service+".focus()")
	b.Key(t, "Enter")
	b.Until(t, `document.getElementById("verdict").textContent == "delivered"`)
	said := b.Names(t, "button", "heading", "status")
	for _, want := range []string{
		"button Service default/web, ClusterIP, 2 of 3 endpoints ready",
		"button Service default/nobody, ClusterIP, no endpoints",
		"button pod default/web-c, not ready, of default/web",
		"heading What becomes of a connection?",
	} {
		if !slices.Contains(said, want) {
			t.Errorf("a screen reader does not say %q, but:\n%s", want, strings.Join(said, "\n"))
		}
	}
	w.Kubectl(t, "delete", "service", "web")
	b.Until(t, `!document.querySelector('[data-key="service/default/web"]')`)
	b.Until(t, `document.getElementById("answer").textContent.includes("no Service has the address")`)
}

// dashboard starts `minato dashboard` until the test ends, and returns the page's address.
func dashboard(t *testing.T, w *world.World) (url string) {
	t.Helper()
	d := w.Daemon(t, "/", w.Minato, "dashboard", "--url", "--name", w.Name, "--state-dir", w.StateDir)
	world.Eventually(t, netTime, func() error {
		if out := d.Output(); strings.HasSuffix(out, "/\n") {
			url = strings.TrimSpace(out)
			return nil
		}
		return fmt.Errorf("minato dashboard prints no address: %q", d.Output())
	})
	return url
}
