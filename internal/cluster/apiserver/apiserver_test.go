package apiserver_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/apiserver/apiservertest"
	"minato/internal/cluster/apiserver/store"
)

func TestFirstStartIsReadyWithTheSystemsObjects(t *testing.T) {
	began := time.Now()
	s := apiservertest.Start(t, t.TempDir())
	t.Logf("ready %v after Start was called", time.Since(began))

	client, ctx := apiservertest.Client(t, s), t.Context()
	for _, namespace := range []string{"default", "kube-system", "kube-public", "kube-node-lease", "metallb-system"} {
		if _, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	slice, err := client.DiscoveryV1().EndpointSlices("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := slice.Endpoints[0].Addresses; !cmp.Equal(got, []string{"172.30.0.1"}) || *slice.Ports[0].Port != 6443 {
		t.Errorf("default/kubernetes has the endpoints %v, port %d", got, *slice.Ports[0].Port)
	}
	for name, want := range map[string]string{"default/kubernetes": "10.96.0.1", "kube-system/kube-dns": "10.96.0.10"} {
		if got := clusterIPs(t, client)[name]; got != want {
			t.Errorf("Service %s has the ClusterIP %q, want %s", name, got, want)
		}
	}
}

func TestVersionIsUpstreamsRelease(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	v, err := apiservertest.Client(t, s).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if v.GitVersion != "v1.36.3" || v.Major != "1" || v.Minor != "36" {
		t.Errorf("the API says it is %s (%s.%s)", v.GitVersion, v.Major, v.Minor)
	}
}

func TestDeletedSystemServiceComesBack(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	client := apiservertest.Client(t, s)
	if err := client.CoreV1().Services("default").Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(context.Context) string {
		if clusterIPs(t, client)["default/kubernetes"] != "10.96.0.1" {
			return "Service kubernetes is not back"
		}
		return ""
	})
}

func TestAddressesAndPortsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	s := apiservertest.Start(t, dir)
	client := apiservertest.Client(t, s)
	first := create(t, client, service("first", corev1.ServiceTypeNodePort))
	if len(first.Spec.ClusterIP) == 0 || first.Spec.Ports[0].NodePort == 0 {
		t.Fatalf("no ClusterIP or no NodePort was allocated: %+v", first.Spec)
	}
	before := clusterIPs(t, client)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	client = apiservertest.Client(t, apiservertest.Start(t, dir))
	if diff := cmp.Diff(before, clusterIPs(t, client)); diff != "" {
		t.Errorf("ClusterIPs changed (-before +after):\n%s", diff)
	}
	sameIP := service("same-ip", corev1.ServiceTypeClusterIP)
	sameIP.Spec.ClusterIP = first.Spec.ClusterIP
	if _, err := client.CoreV1().Services("default").Create(t.Context(), sameIP, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a second Service with ClusterIP %s: got error %v, want Invalid", first.Spec.ClusterIP, err)
	}
	samePort := service("same-port", corev1.ServiceTypeNodePort)
	samePort.Spec.Ports[0].NodePort = first.Spec.Ports[0].NodePort
	if _, err := client.CoreV1().Services("default").Create(t.Context(), samePort, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a second Service with NodePort %d: got error %v, want Invalid", first.Spec.Ports[0].NodePort, err)
	}
}

func TestClusterIPOfACrashedCreateIsNotGivenTwice(t *testing.T) {
	dir := t.TempDir()
	s := apiservertest.Start(t, dir)
	client := apiservertest.Client(t, s)
	// What a crash between allocation and creation leaves behind.
	orphan := ipAddress("10.96.7.7", "default", "never-made")
	if _, err := client.NetworkingV1().IPAddresses().Create(t.Context(), orphan, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	client = apiservertest.Client(t, apiservertest.Start(t, dir))
	svc := service("wants-it", corev1.ServiceTypeClusterIP)
	svc.Spec.ClusterIP = "10.96.7.7"
	if _, err := client.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Fatalf("creating a Service with an address in doubt: got error %v, want Invalid", err)
	}
}

func TestSecondInstanceOnTheSameFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	apiservertest.Start(t, dir)
	_, err := apiserver.Start(t.Context(), apiservertest.Config(t, dir))
	if !errors.Is(err, store.ErrLocked) {
		t.Errorf("got error %v, want %v", err, store.ErrLocked)
	}
}

func TestAnotherServiceRangeIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := apiservertest.Start(t, dir).Stop(); err != nil {
		t.Fatal(err)
	}
	cfg := apiservertest.Config(t, dir)
	cfg.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}
	if _, err := apiserver.Start(t.Context(), cfg); !errors.Is(err, apiserver.ErrServiceCIDR) {
		t.Errorf("got error %v, want %v", err, apiserver.ErrServiceCIDR)
	}
}

func TestServicesGetTheFamiliesTheyAskFor(t *testing.T) {
	cfg := apiservertest.Config(t, t.TempDir())
	cfg.ServiceCIDRs = append(cfg.ServiceCIDRs, netip.MustParsePrefix("fd00:10:96::/112"))
	cfg.DNSAddrs = append(cfg.DNSAddrs, netip.MustParseAddr("fd00:10:96::a"))
	client := apiservertest.Client(t, apiservertest.StartWith(t, cfg))
	six := []corev1.IPFamily{corev1.IPv6Protocol}
	for name, tt := range map[string]struct {
		policy   corev1.IPFamilyPolicy
		families []corev1.IPFamily
		want     string // first letters of the ClusterIPs
	}{
		"unsaid":       {"", nil, "10"},
		"single":       {corev1.IPFamilyPolicySingleStack, nil, "10"},
		"single-six":   {corev1.IPFamilyPolicySingleStack, six, "fd"},
		"prefer":       {corev1.IPFamilyPolicyPreferDualStack, nil, "10 fd"},
		"prefer-six":   {corev1.IPFamilyPolicyPreferDualStack, six, "fd 10"},
		"require":      {corev1.IPFamilyPolicyRequireDualStack, nil, "10 fd"},
		"require-both": {corev1.IPFamilyPolicyRequireDualStack, []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}, "fd 10"},
	} {
		t.Run(name, func(t *testing.T) {
			svc := service(name, corev1.ServiceTypeClusterIP)
			if svc.Spec.IPFamilies = tt.families; tt.policy != "" {
				svc.Spec.IPFamilyPolicy = &tt.policy
			}
			svc, err := client.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ip := range svc.Spec.ClusterIPs {
				got = append(got, ip[:2])
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", svc.Spec.ClusterIPs, tt.want)
			}
		})
	}
	dns, err := client.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
	if err != nil || strings.Join(dns.Spec.ClusterIPs, " ") != "10.96.0.10 fd00:10:96::a" {
		t.Errorf("kube-dns has %v (%v)", dns.Spec.ClusterIPs, err)
	}
}

func TestAllListenersServe(t *testing.T) {
	cfg := apiservertest.Config(t, t.TempDir())
	cfg.Listeners = append(cfg.Listeners, apiservertest.Config(t, "").Listeners...)
	s := apiservertest.StartWith(t, cfg)
	for _, l := range cfg.Listeners {
		api := s.Privileged()
		api.Host = "https://" + l.Addr().String()
		if _, err := apiservertest.ClientFor(t, api).Discovery().ServerVersion(); err != nil {
			t.Errorf("at %s: %v", l.Addr(), err)
		}
	}
}

func TestStopAndStartAgainIsQuick(t *testing.T) {
	dir := t.TempDir()
	if err := apiservertest.Start(t, dir).Stop(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	apiservertest.Start(t, dir)
	t.Logf("ready %v after Start was called", time.Since(began))
}

func TestOldSourceRangeIsTakenWithAWarning(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	warnings := &recorder{}
	api := s.Privileged()
	api.WarningHandler = warnings
	svc := service("lb", corev1.ServiceTypeLoadBalancer)
	svc.Spec.LoadBalancerSourceRanges = []string{"192.168.3.0/8"}
	create(t, apiservertest.ClientFor(t, api), svc)
	if len(warnings.texts) != 1 {
		t.Errorf("got the warnings %q, want one", warnings.texts)
	}
}

type recorder struct{ texts []string }

func (r *recorder) HandleWarningHeader(_ int, _, text string) { r.texts = append(r.texts, text) }

func service(name string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.ServiceSpec{Type: kind, Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func create(t *testing.T, client kubernetes.Interface, svc *corev1.Service) *corev1.Service {
	t.Helper()
	made, err := client.CoreV1().Services(svc.Namespace).Create(t.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func clusterIPs(t *testing.T, client kubernetes.Interface) map[string]string {
	t.Helper()
	list, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ips := map[string]string{}
	for _, s := range list.Items {
		ips[s.Namespace+"/"+s.Name] = s.Spec.ClusterIP
	}
	return ips
}

// ipAddress is what the allocator creates for a Service before the Service is.
func ipAddress(ip, namespace, service string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{networkingv1.LabelIPAddressFamily: "IPv4", networkingv1.LabelManagedBy: ipallocator.ControllerName}},
		Spec:       networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: namespace, Name: service}},
	}
}
