//go:build linux

package kubelet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"minato/internal/cluster/cni"
	"minato/internal/cluster/cni/plugin"
	"minato/internal/cluster/containerd"
	"minato/internal/cluster/containerd/containerdtest"
	"minato/internal/cluster/kubelet"
	"minato/internal/netns"
)

func TestMain(m *testing.M) {
	if plugin.Is(os.Args[0]) {
		os.Exit(plugin.Main(os.Args[0], os.Getenv, os.Stdin, os.Stdout))
	}
	containerdtest.Main(m)
}

const (
	nodeName  = "node1"
	podImage  = "test.local/pod:1"
	namespace = "default"
	soon      = 45 * time.Second // until something must have happened
)

// world is a node: the real runtime, a fake API, one kubelet.
type world struct {
	*containerdtest.World
	t      *testing.T
	client *fake.Clientset
	config kubelet.Config
	stop   func() // of the kubelet
	caller tls.Certificate
	roots  *x509.CertPool
}

// newWorld makes a node whose kubelet does not run yet; ns is the node's namespace.
func newWorld(t *testing.T, ns netns.NS, objects ...apiruntime.Object) *world {
	t.Helper()
	w := &world{World: containerdtest.Prepare(t), t: t, stop: func() {}}
	loadPodImage(t, w.World)
	socket := filepath.Join(w.Config.RunDir, "control.sock")
	if err := cni.Install(w.Config.CNIBinDir(), w.Config.CNIConfDir(), "minato-test", socket); err != nil {
		t.Fatal(err)
	}
	w.serveCNI(socket, ns)
	daemon, err := containerd.Start(t.Context(), w.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Close)
	cri, images, err := daemon.CRI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cri.Close(context.Background()); images.Close(context.Background()) })

	w.client = fake.NewClientset(objects...)
	w.client.PrependReactor("create", "serviceaccounts/token", func(clienttesting.Action) (bool, apiruntime.Object, error) {
		return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
			Token: "a-token", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
		}}, nil
	})
	factory := informers.NewSharedInformerFactory(w.client, 0)
	services := factory.Core().V1().Services()
	synced := services.Informer().HasSynced
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	serving := w.certificates()
	dir := t.TempDir()
	w.config = kubelet.Config{
		NodeName: nodeName, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Netns: ns, PodCIDRs: []string{"10.9.0.0/24"},
		Client: w.client, Services: services.Lister(), ServicesSynced: synced,
		Runtime: cri, Images: images, Exits: daemon.Exits,
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, ClusterDomain: "cluster.local", HostResolvConf: resolvConf(t),
		Serving: serving, ClientCA: w.roots,
		StateDir: filepath.Join(dir, "state"), PodLogsDir: filepath.Join(dir, "logs"), CgroupRoot: w.Config.CgroupRoot,
		Log: w.Log,
	}
	t.Cleanup(func() {
		if err := kubelet.Remove(w.config.StateDir); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start runs the kubelet until stop or the end of the test.
func (w *world) start() {
	w.t.Helper()
	k, err := kubelet.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Error(err)
			}
		case <-time.After(soon):
			buf := make([]byte, 1<<20)
			w.t.Errorf("the kubelet did not stop:\n%s", buf[:runtime.Stack(buf, true)])
		}
	})
	w.t.Cleanup(func() { w.stop() })
	for deadline := time.Now().Add(soon); ; time.Sleep(5 * time.Millisecond) {
		conn, err := w.config.Netns.DialContext(w.t.Context(), "tcp", "127.0.0.1:10250")
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the kubelet does not serve: %v", err)
		}
	}
}

func resolvConf(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// certificates makes an authority, the kubelet's certificate, which it returns, and the caller's.
func (w *world) certificates() tls.Certificate {
	w.t.Helper()
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test", Organization: []string{"system:masters"}}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		w.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AddCert(certificate)
	w.caller = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return w.caller
}

// pod is one with a container "main" that runs commands, changed by the given functions.
func pod(podName, commands string, change ...func(*v1.Pod)) *v1.Pod {
	links, grace, mode := true, int64(5), int32(0o644)
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName, Namespace: namespace, UID: types.UID("uid-" + podName), Generation: 1, CreationTimestamp: metav1.Now()},
		Spec: v1.PodSpec{
			NodeName: nodeName, RestartPolicy: v1.RestartPolicyAlways, DNSPolicy: v1.DNSClusterFirst,
			EnableServiceLinks: &links, TerminationGracePeriodSeconds: &grace, ServiceAccountName: "default",
			SecurityContext: &v1.PodSecurityContext{},
			Containers:      []v1.Container{container("main", commands)},
			Volumes: []v1.Volume{{Name: "token", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []v1.VolumeProjection{
				{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
			}}}}},
		},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func container(containerName, commands string) v1.Container {
	return v1.Container{
		Name: containerName, Image: podImage, ImagePullPolicy: v1.PullIfNotPresent, Args: strings.Fields(commands),
		TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: v1.TerminationMessageReadFile,
		VolumeMounts: []v1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
	}
}

func (w *world) create(p *v1.Pod) {
	w.t.Helper()
	if _, err := w.client.CoreV1().Pods(p.Namespace).Create(w.t.Context(), p, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// delete does what the API does for a graceful deletion.
func (w *world) delete(podName string, grace int64) {
	w.t.Helper()
	p := w.get(podName)
	end := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &end, &grace
	if _, err := w.client.CoreV1().Pods(namespace).Update(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(podName string) *v1.Pod {
	w.t.Helper()
	p, err := w.client.CoreV1().Pods(namespace).Get(w.t.Context(), podName, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// until waits for a pod's condition, named for the failure.
func (w *world) until(podName, what string, is func(*v1.Pod) bool) *v1.Pod {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for {
		p := w.get(podName)
		if is(p) {
			return p
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("pod %s is not %s: %+v\nevents: %v", podName, what, p.Status, w.events(podName))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) untilGone(podName string) {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for {
		_, err := w.client.CoreV1().Pods(namespace).Get(w.t.Context(), podName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("pod %s is still there: %v", podName, w.get(podName).Status)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// events are "reason: message" of a pod.
func (w *world) events(podName string) []string {
	w.t.Helper()
	list, err := w.client.CoreV1().Events("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var texts []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == podName {
			texts = append(texts, e.Reason+": "+e.Message)
		}
	}
	return texts
}

func (w *world) untilEvent(podName, text string) {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for !strings.Contains(strings.Join(w.events(podName), "\n"), text) {
		if time.Now().After(deadline) {
			w.t.Fatalf("pod %s has no event %q: %q", podName, text, w.events(podName))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func running(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning }

func ready(p *v1.Pod) bool { return condition(p, v1.PodReady) == v1.ConditionTrue }

func condition(p *v1.Pod, kind v1.PodConditionType) v1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return v1.ConditionUnknown
}

// call asks the kubelet's server as the API does.
func (w *world) call(path string) (string, int) {
	w.t.Helper()
	client := http.Client{Timeout: soon, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: w.roots, Certificates: []tls.Certificate{w.caller},
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("https://127.0.0.1:10250" + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(body), response.StatusCode
}

// untilLogged waits until a container's log holds a text, and returns the log.
func (w *world) untilLogged(podName, containerName, text string) string {
	w.t.Helper()
	deadline := time.Now().Add(soon)
	for {
		log, code := w.call("/containerLogs/" + namespace + "/" + podName + "/" + containerName)
		if code == http.StatusOK && strings.Contains(log, text) {
			return log
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("log of %s/%s (%d) does not hold %q: %s", podName, containerName, code, text, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// gate is what a container awaits, as the file /gate/open, until its test has seen it run.
type gate struct {
	t   *testing.T
	dir string
}

func newGate(t *testing.T) gate { return gate{t, t.TempDir()} }

func (g gate) mount(p *v1.Pod) {
	p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: "gate", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: g.dir}}})
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, v1.VolumeMount{Name: "gate", MountPath: "/gate"})
}

func (g gate) open() {
	if err := os.WriteFile(filepath.Join(g.dir, "open"), nil, 0o644); err != nil {
		g.t.Error(err)
	}
}
