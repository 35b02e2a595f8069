//go:build linux

// Package agent_test runs minato-agent itself, as a process in the namespace of a node, against an API that has only
// what a test sets. It is ended by signals and started again; what it programs is tried with connections.
package agent_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/netns"
	"minato/internal/netns/netnstest"
	"minato/test/feed"
)

const (
	nodeAddr = "172.30.0.11"
	vip      = "10.96.0.1:80"
	one, two = "10.244.1.2", "10.244.1.3"
)

// binary is minato-agent, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "minato-agent-test-")
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "minato-agent")
	out, err := exec.Command("go", "build", "-o", at, "minato/cmd/minato-agent").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("build minato-agent: %w\n%s", err, out)
	}
	return at, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if at, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(at))
	}
	os.Exit(code)
}

// world is a node, and a pod beside it that has the addresses of two endpoints and of a client.
type world struct {
	t         *testing.T
	node, pod netns.NS
	api       *feed.Server
	kubeconf  string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: netnstest.Namespace(t, "node"), pod: netnstest.Namespace(t, "pod"), api: feed.New()}
	netnstest.Link(t, w.node, "pod", nodeAddr+"/32", w.pod, "eth0", one+"/32")
	for _, c := range []struct {
		ns   netns.NS
		line string
	}{
		{w.node, "sysctl -qw net.ipv4.ip_forward=1"}, {w.node, "ip route add 10.244.1.0/24 dev pod"},
		{w.node, "ip route add default dev pod"}, // somewhere to go, until the address is translated
		{w.pod, "ip address add " + two + "/32 dev eth0"}, {w.pod, "ip route add default dev eth0"},
	} {
		netnstest.Run(t, c.ns, strings.Fields(c.line)...)
	}
	for _, a := range []string{one, two} {
		netnstest.ServeTCP(t, w.pod, a, a+":8080")
	}
	w.api.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr}}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{ClusterIP: netip.MustParseAddrPort(vip).Addr().String(), Ports: []corev1.ServicePort{{Port: 80}}}})
	l, err := w.node.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.api.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-served })
	w.kubeconf = filepath.Join(t.TempDir(), "kubeconfig")
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://%s\"}}]\n"+
		"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", l.Addr())
	if err := os.WriteFile(w.kubeconf, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// endpoints makes these the endpoints of the Service.
func (w *world) endpoints(addrs ...string) {
	port, name := int32(8080), ""
	o := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	for _, a := range addrs {
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	w.api.Set(o)
}

// start runs the agent until it is ended.
func (w *world) start(args ...string) (end func(unix.Signal)) {
	w.t.Helper()
	at, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(at, append([]string{"--kubeconfig", w.kubeconf, "--node-name", "node1", "--service-cidr", "10.96.0.0/12"}, args...)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := netnstest.Start(w.node, cmd); err != nil {
		w.t.Fatal(err)
	}
	ended := sync.OnceFunc(func() { _ = cmd.Wait() })
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		ended()
		if w.t.Failed() {
			w.t.Log(log.String())
		}
	})
	return func(s unix.Signal) {
		_ = cmd.Process.Signal(s)
		ended()
	}
}

// eventually asks at the Service's address until only want answers, twenty times in a row.
func (w *world) eventually(want string) {
	w.t.Helper()
	var last any
	for deadline, row := time.Now().Add(time.Minute), 0; row < 20; {
		a, err := netnstest.Ask(w.node, "tcp", vip)
		if row++; err != nil || a.Name != want {
			row, last = 0, fmt.Sprint(a.Name, err)
			time.Sleep(20 * time.Millisecond)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("answered by %v, want %s", last, want)
		}
	}
}

func TestAgentFollowsTheAPI(t *testing.T) {
	w := newWorld(t)
	w.endpoints(one)
	w.start()
	w.eventually(one)
	w.endpoints(two)
	w.eventually(two)
}

func TestConnectionsGoOnWithoutTheAgentAndChangesAreMadeUpFor(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		t.Run(unix.SignalName(s), func(t *testing.T) {
			w := newWorld(t)
			w.endpoints(one)
			end := w.start()
			w.eventually(one)
			end(s)
			w.endpoints(two)
			for range 20 {
				if a := netnstest.MustAsk(t, w.node, "tcp", vip); a.Name != one {
					t.Fatalf("answered by %s while nobody runs", a.Name)
				}
			}
			w.start()
			w.eventually(two)
		})
	}
}

// What monitoring and load balancers ask kube-proxy, at the same ports.
func TestTheAgentAnswersWhereKubeProxyDoes(t *testing.T) {
	w := newWorld(t)
	w.endpoints(one)
	w.start()
	w.eventually(one)
	for _, c := range []struct{ at, has string }{
		{nodeAddr + ":10256/healthz", `"nodeEligible":true,"healthy":true`}, {"127.0.0.1:10256/livez", `"healthy":true`},
		{"127.0.0.1:10249/proxyMode", "nftables"}, {"127.0.0.1:10249/healthz", "ok"},
		{"127.0.0.1:10249/metrics", "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} "},
		{"127.0.0.1:10249/metrics", "minato_service_connections_total{ip_family=\"IPv4\",namespace=\"default\",service=\"web\",verdict=\"forwarded\"} "},
		{"127.0.0.1:10249/metrics", "minato_applied_revision{"},
	} {
		if got := w.get(c.at); !strings.Contains(got, c.has) {
			t.Errorf("%s: %q is not in\n%s", c.at, c.has, got)
		}
	}
}

// get asks from the node.
func (w *world) get(url string) string {
	w.t.Helper()
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.node.DialContext}}
	r, err := c.Get("http://" + url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(body)
}

func TestNodePortsAnswerAtTheLoopbackWhereThatIsAskedFor(t *testing.T) {
	for _, asked := range []bool{true, false} {
		w := newWorld(t)
		w.api.Set(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: netip.MustParseAddrPort(vip).Addr().String(),
				Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}}})
		w.endpoints(one)
		if asked {
			w.start("--localhost-nodeports")
		} else {
			w.start()
		}
		w.eventually(one)
		_, err := netnstest.Ask(w.node, "tcp", "127.0.0.1:30080")
		for deadline := time.Now().Add(10 * time.Second); asked && err != nil && time.Now().Before(deadline); { // it opens after the rules are there
			_, err = netnstest.Ask(w.node, "tcp", "127.0.0.1:30080")
		}
		if (err == nil) != asked {
			t.Errorf("asked for: %t, got %v", asked, err)
		}
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.endpoints(one)
	end := w.start()
	w.eventually(one)
	end(unix.SIGTERM)
	at, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	netnstest.Run(t, w.node, at, "--cleanup")
	if left := netnstest.Run(t, w.node, "nft", "list", "tables"); left != "" {
		t.Errorf("left: %s", left)
	}
}
