//go:build linux

package oracle

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/netns/netnstest"
	"minato/test/feed"
	"minato/test/oracle/upstream"
)

// kubeProxy is the program of the module that go.mod names, built once.
var kubeProxy = sync.OnceValues(func() (string, error) {
	dir, err := tempDir()
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "kube-proxy")
	if out, err := exec.Command("go", "build", "-o", at, "k8s.io/kubernetes/cmd/kube-proxy").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kube-proxy: %w\n%s", err, out)
	}
	return at, nil
})

// kubeProxyExceptions are what real packets meet by kube-proxy otherwise than by its tests, which interpret rules.
var kubeProxyExceptions = []exception{
	{test: "TestTracePacket", reason: "it tests upstream's own interpreter of rules, with rules and no Services"},
	{mode: "iptables", test: "TestHealthCheckNodePort", flow: "firewall accepts HealthCheckNodePort", ours: leftAlone,
		reason: "a packet that is accepted goes where it would have gone"},
}

// The control: the same packets, with kube-proxy itself on the node.
func TestPacketsGoWhereKubeProxySendsThemByKubeProxyItself(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts kube-proxy once for each of upstream's tests, which takes minutes")
	}
	bin, err := kubeProxy()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	each(t, append(unsendable, kubeProxyExceptions...), func(t *testing.T, b upstream.Block) func(upstream.Flow) outcome {
		w.furnish(t, b)
		netnstest.Run(t, w.node, "nft", "flush", "ruleset")
		w.startKubeProxy(t, bin, b)
		w.forget()
		return w.sent
	})
}

// startKubeProxy runs kube-proxy on the node for one test, with an API that has the objects of the block.
func (w *world) startKubeProxy(t *testing.T, bin string, b upstream.Block) {
	api := feed.New()
	api.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.Node}, Spec: corev1.NodeSpec{PodCIDR: podCIDRs[0].String(), PodCIDRs: []string{podCIDRs[0].String(), podCIDRs[1].String()}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: nodeAddr(false)}, {Type: corev1.NodeInternalIP, Address: nodeAddr(true)}}}})
	api.Set(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{serviceCIDRs[0].String(), serviceCIDRs[1].String()}}})
	for _, s := range b.Services {
		api.Set(s.DeepCopy())
	}
	for _, s := range b.Slices {
		api.Set(s.DeepCopy())
	}
	l, err := w.node.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { api.Serve(ctx, l) })
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(kubeProxyConfig(b, "http://"+l.Addr().String(), dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(bin, "--config", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := netnstest.Start(w.node, cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		cancel()
		served.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	w.waitSynced(t, b)
}

func kubeProxyConfig(b upstream.Block, api, dir string) string {
	kubeconfig := filepath.Join(dir, "kubeconfig")
	content := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n", api)
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		panic(err)
	}
	var pods, nodePorts []string
	if b.KnowsPods {
		pods = []string{podCIDRs[0].String(), podCIDRs[1].String()}
	}
	if !b.NodePortsEverywhere {
		for _, a := range addrs(b.NodePortAddrs...) {
			nodePorts = append(nodePorts, netip.PrefixFrom(a, a.BitLen()).String())
		}
	}
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
clusterCIDR: %q
nodePortAddresses: [%s]
iptables: {masqueradeAll: %t, localhostNodePorts: %t}
nftables: {masqueradeAll: %t}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, b.Suite, b.Node, kubeconfig, strings.Join(pods, ","), quoted(nodePorts), b.MasqueradeAll, !strings.Contains(b.Test, "localhost-nodeports_disabled"), b.MasqueradeAll)
}

func quoted(in []string) string {
	var out []string
	for _, s := range in {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return strings.Join(out, ", ")
}

// waitSynced waits until kube-proxy says that it has programmed the family of the block.
func (w *world) waitSynced(t *testing.T, b upstream.Block) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return w.node.DialContext(ctx, network, addr)
		}}}
	family := "IPv4"
	if b.IPv6 {
		family = "IPv6"
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get("http://127.0.0.1:10249/metrics")
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		for line := range strings.Lines(string(body)) {
			if v, ok := strings.CutPrefix(line, `kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="`+family+`"} `); ok && strings.TrimSpace(v) != "0" {
				return
			}
		}
	}
	t.Fatal("kube-proxy does not come up")
}
