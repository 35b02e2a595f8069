package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	cristreaming "k8s.io/cri-streaming/pkg/streaming/portforward"
	criremote "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/apiserver/apiservertest"
)

const (
	nodeAddr = "172.30.0.11"
	podAddr  = "10.244.1.2"
)

// withKubelet starts an API whose network has a kubelet at nodeAddr:10250 and a web
// server at podAddr:80, and nothing else.
func withKubelet(t *testing.T) (*apiserver.Server, kubernetes.Interface) {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "web "+r.URL.Path) }))
	t.Cleanup(web.Close)
	kubelet := httptest.NewUnstartedServer(http.HandlerFunc(serveKubelet))
	hosts := map[string]string{podAddr + ":80": web.Listener.Addr().String(), nodeAddr + ":10250": kubelet.Listener.Addr().String()}
	cfg := apiservertest.Config(t, t.TempDir())
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if hosts[addr] == "" {
			return nil, fmt.Errorf("nobody is at %s", addr)
		}
		return new(net.Dialer).DialContext(ctx, network, hosts[addr])
	}
	s := apiservertest.StartWith(t, cfg)
	cert, err := s.KubeletServing("node1", netip.MustParseAddr(nodeAddr))
	if err != nil {
		t.Fatal(err)
	}
	kubelet.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.ClientCA()}
	kubelet.StartTLS()
	t.Cleanup(kubelet.Close)
	client := apiservertest.Client(t, s)
	runPod(t, client)
	return s, client
}

// runPod makes a Node at nodeAddr and a pod on it at podAddr.
func runPod(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, podAddr, []corev1.PodIP{{IP: podAddr}}
	if _, err := client.CoreV1().Pods("default").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// serveKubelet answers as a kubelet whose containers echo what they get.
func serveKubelet(w http.ResponseWriter, r *http.Request) {
	const idle, create = time.Minute, 10 * time.Second
	switch {
	case strings.HasPrefix(r.URL.Path, "/containerLogs/"):
		fmt.Fprintf(w, "log for %s", r.TLS.PeerCertificates[0].Subject.CommonName)
	case r.URL.Path == "/stats/summary":
		fmt.Fprint(w, `{"node": {"cpu": {"usageNanoCores": 1500000000}, "memory": {"workingSetBytes": 1048576}}, "pods": [
			{"podRef": {"name": "p", "namespace": "default"}, "containers": [{"name": "c", "cpu": {"usageNanoCores": 2000000}, "memory": {"workingSetBytes": 4096}}]},
			{"podRef": {"name": "gone", "namespace": "default"}, "containers": [{"name": "c", "cpu": {"usageNanoCores": 1}, "memory": {"workingSetBytes": 1}}]}]}`)
	case strings.HasPrefix(r.URL.Path, "/exec/"):
		options, err := criremote.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		criremote.ServeExec(w, r, echo{}, "p", "", "c", r.URL.Query()["command"], options, idle, create, criremote.SupportedStreamingProtocols)
	case strings.HasPrefix(r.URL.Path, "/portForward/"):
		cristreaming.ServePortForward(w, r, echo{}, "p", "", nil, idle, create, cristreaming.SupportedProtocols)
	default:
		http.NotFound(w, r)
	}
}

type echo struct{}

func (echo) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan criremote.TerminalSize, _ time.Duration) error {
	fmt.Fprintf(out, "%v ", cmd)
	_, err := io.Copy(out, in)
	return err
}

func (echo) PortForward(_ context.Context, _, _ string, _ int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := io.Copy(stream, stream)
	return err
}

func TestLogsComeFromTheKubeletWhichKnowsTheAPI(t *testing.T) {
	_, client := withKubelet(t)
	got, err := client.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil || string(got) != "log for kube-apiserver-kubelet-client" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProxiesReachPods(t *testing.T) {
	_, client := withKubelet(t)
	svc := service("web", corev1.ServiceTypeClusterIP)
	svc.Spec.Selector = nil
	create(t, client, svc)
	pod := &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"} // upstream proxies to pods only
	//lint:ignore SA1019 upstream's services/proxy reads Endpoints
	endpoints := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: podAddr, TargetRef: pod}}, Ports: []corev1.EndpointPort{{Port: 80}}}}}
	if _, err := client.CoreV1().Endpoints("default").Create(t.Context(), endpoints, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"pods/p:80", "services/web:80"} {
		got, err := client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/default/" + what + "/proxy/page").DoRaw(t.Context())
		if err != nil || string(got) != "web /page" {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
}

func TestExecByWebSocketAndBySPDY(t *testing.T) {
	s, client := withKubelet(t)
	options := &corev1.PodExecOptions{Container: "c", Command: []string{"cat"}, Stdin: true, Stdout: true}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("exec").VersionedParams(options, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(s.Privileged(), "POST", url)
	if err != nil {
		t.Fatal(err)
	}
	websocket, err := remotecommand.NewWebSocketExecutor(s.Privileged(), "GET", url.String())
	if err != nil {
		t.Fatal(err)
	}
	for name, executor := range map[string]remotecommand.Executor{"SPDY": spdy, "WebSocket": websocket} {
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), apiservertest.Timeout)
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		cancel()
		if err != nil || out.String() != "[cat] hello" {
			t.Errorf("%s: got %q, %v", name, out.String(), err)
		}
	}
}

func TestPortForwardByWebSocket(t *testing.T) {
	s, client := withKubelet(t)
	local := forward(t, s.Privileged(), client)
	conn, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// forward does what `kubectl port-forward p :80` does, and returns the local address.
func forward(t *testing.T, cfg *rest.Config, client kubernetes.Interface) string {
	t.Helper()
	url := client.CoreV1().RESTClient().Get().Resource("pods").Namespace("default").Name("p").SubResource("portforward").URL()
	dialer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.NewForStreaming(dialer, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	t.Cleanup(func() { close(stop); <-done })
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local)
}
