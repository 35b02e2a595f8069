// Package apiservertest starts the embedded API for tests, on a loopback port, and
// gives it Nodes without kubelets. It runs no controllers: a test that needs them
// runs them over the same informers.
package apiservertest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"minato/internal/cluster/apiserver"
)

// Timeout is how long anything that a test waits for may take on a loaded machine.
const Timeout = 60 * time.Second

// Config is a configuration for an API in dir, on a free loopback port. A kubelet or
// pod that it dials is looked for on this machine's loopback.
func Config(t testing.TB, dir string) apiserver.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return apiserver.Config{
		Dir: dir, Listeners: []net.Listener{listener}, Advertise: netip.MustParseAddrPort("172.30.0.1:6443"),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, DNSAddrs: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, ClusterDomain: "cluster.local",
		NodePorts: apiserver.PortRange{First: 30000, Last: 32767},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(addr); !net.ParseIP(host).IsLoopback() {
				return nil, fmt.Errorf("a test would leave the machine to %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// Start runs an API in dir and waits until it is ready. It ends with the test.
func Start(t testing.TB, dir string) *apiserver.Server {
	t.Helper()
	return StartWith(t, Config(t, dir))
}

// StartWith is Start with a configuration.
func StartWith(t testing.TB, cfg apiserver.Config) *apiserver.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	s, err := apiserver.Start(context.WithoutCancel(ctx), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("the API ended with: %v", err)
		}
	})
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// Client is a client that may do everything.
func Client(t testing.TB, s *apiserver.Server) kubernetes.Interface {
	t.Helper()
	return ClientFor(t, s.Privileged())
}

// ClientFor is a client with a configuration.
func ClientFor(t testing.TB, cfg *rest.Config) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Eventually asks condition until it returns "", and fails with its last answer.
func Eventually(t testing.TB, condition func(ctx context.Context) string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	for {
		missing := condition(ctx)
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after %v: %s", Timeout, missing)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Node registers a ready Node as its kubelet would, and renews its Lease until the
// returned function is called.
func Node(t testing.TB, s *apiserver.Server, name string) (stop func()) {
	t.Helper()
	cfg, err := s.NodeConfig(name)
	if err != nil {
		t.Fatal(err)
	}
	client := ClientFor(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if node, err = client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	node.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	node.Status.Capacity = node.Status.Allocatable
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	renew(t, ctx, client, name)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
				renew(t, ctx, client, name)
			}
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// renew writes the Node's heartbeat.
func renew(t testing.TB, ctx context.Context, client kubernetes.Interface, name string) {
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NewMicroTime(time.Now())
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, RenewTime: &now}}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		lease.Spec.RenewTime = &now
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil {
		t.Errorf("renewing the Lease of %s: %v", name, err)
	}
}
