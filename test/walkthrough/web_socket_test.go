//go:build linux

package walkthrough

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"minato/test/world"
)

// chatObjects are a site whose only server is outside the cluster, so that the test can be the server.
const chatObjects = `
apiVersion: v1
kind: Service
metadata: {name: chat}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: chat-1, labels: {kubernetes.io/service-name: chat}}
addressType: IPv4
ports: [{name: http, port: 8000}]
endpoints: [{addresses: [172.217.31.170]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat}
spec:
  tls: [{hosts: [chat.example.com], secretName: chat-tls}]
  rules:
  - host: chat.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: chat, port: {name: http}}}}]}
`

// chat is a site with a page that greets its server over a WebSocket.
func chat(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, chatPage)
	case "/socket":
		websocket.Handler(echo).ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

const chatPage = `<!doctype html><title>chat</title><link rel="icon" href="data:,">
<body style="font: 20px sans-serif"><h1>chat</h1><p id="log">connecting</p>
<script>
const socket = new WebSocket("wss://" + location.host + "/socket");
socket.onopen = () => socket.send("hello");
socket.onmessage = m => { document.getElementById("log").textContent = "echo: " + m.data; };
socket.onerror = () => { document.getElementById("log").textContent = "failed"; };
</script>`

// echo sends everything back, until it is told to hang up.
func echo(s *websocket.Conn) {
	for {
		var text string
		if err := websocket.Message.Receive(s, &text); err != nil || text == "hang up" {
			return
		}
		if err := websocket.Message.Send(s, text); err != nil {
			return
		}
	}
}

// webSocket is by an own site: the article points at the YAML of others.
func (e ways) webSocket(t *testing.T) {
	e.w.Internet.Serve(t, "172.217.31.170:8000", http.HandlerFunc(chat))
	dir := certificate(t, "chat.example.com")
	e.w.Kubectl(t, "create", "secret", "tls", "chat-tls", "--cert="+dir+"/tls.crt", "--key="+dir+"/tls.key")
	file := filepath.Join(dir, "chat.yaml")
	if err := os.WriteFile(file, []byte(chatObjects), 0o600); err != nil {
		t.Fatal(err)
	}
	e.w.Kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { e.w.Kubectl(t, "delete", "-f", file); e.w.Kubectl(t, "delete", "secret", "chat-tls") })
	at := ""
	world.Eventually(t, podTime, func() error {
		at = e.w.Kubectl(t, "get", "ingress", "chat", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if r := e.get(at, "https://chat.example.com/", "--cacert", dir+"/tls.crt"); at == "" || r.Err != nil || !strings.Contains(r.Stdout, "<h1>chat") {
			return fmt.Errorf("no page at %q: %v\n%s", at, r.Err, r.Output())
		}
		return nil
	})
	t.Run("Client", func(t *testing.T) { e.talk(t, at, dir+"/tls.crt") })
	t.Run("Browser", func(t *testing.T) { e.browse(t, at, dir+"/tls.crt") })
}

// talk is a client on the LAN that says small things and large ones, and sees the server hang up.
func (e ways) talk(t *testing.T, at, authority string) {
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn, err := e.w.Host.DialContext(t.Context(), "tcp", at+":443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(podTime)); err != nil {
		t.Fatal(err)
	}
	config, err := websocket.NewConfig("wss://chat.example.com/socket", "https://chat.example.com")
	if err != nil {
		t.Fatal(err)
	}
	s, err := websocket.NewClient(config, tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "chat.example.com"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "", strings.Repeat("long ", 200_000)} {
		var echo string
		if err := websocket.Message.Send(s, text); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(s, &echo); err != nil || echo != text {
			t.Fatalf("sent %d bytes, got %d: %v", len(text), len(echo), err)
		}
	}
	if err := websocket.Message.Send(s, "hang up"); err != nil {
		t.Fatal(err)
	}
	if err := websocket.Message.Receive(s, new(string)); err != io.EOF {
		t.Errorf("after the server has hung up: %v", err)
	}
}

// browse opens the site in a browser that trusts this one certificate, and looks at what the page has become.
func (e ways) browse(t *testing.T, at, authority string) {
	b := e.w.Browse(t, "https://chat.example.com/", "--host-resolver-rules=MAP chat.example.com "+at+", MAP * ~NOTFOUND",
		"--ignore-certificate-errors-spki-list="+keyHash(t, authority), "--window-size=600,300")
	b.Until(t, `document.getElementById("log")?.textContent == "echo: hello"`)
	b.Screenshot(t, "ingress-websocket")
}

// keyHash names a certificate's key, as browsers pin it.
func keyHash(t *testing.T, file string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(file, filepath.Join(filepath.Dir(file), "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
