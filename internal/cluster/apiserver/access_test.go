package apiserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/apiserver/apiservertest"
	"minato/internal/cluster/apiserver/store"
)

// bearer is a client with nothing but a token, which may be empty.
func bearer(t *testing.T, s *apiserver.Server, token string) kubernetes.Interface {
	t.Helper()
	cfg := rest.AnonymousClientConfig(s.Privileged())
	cfg.BearerToken = token
	return apiservertest.ClientFor(t, cfg)
}

func TestWhoMayListPods(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	admin := apiservertest.Client(t, s)
	token := requestToken(t, admin, "default")
	for name, tt := range map[string]struct {
		client kubernetes.Interface
		want   func(error) bool
	}{
		"nobody":           {bearer(t, s, ""), apierrors.IsForbidden},
		"a bad token":      {bearer(t, s, "bad"), apierrors.IsUnauthorized},
		"a ServiceAccount": {bearer(t, s, token), apierrors.IsForbidden},
		"a node":           {ofConfig(t, s.NodeConfig), allowed},
		"an agent":         {ofConfig(t, func(string) (*rest.Config, error) { return s.AgentConfig() }), allowed},
		"the scheduler":    {ofConfig(t, func(string) (*rest.Config, error) { return s.SchedulerConfig() }), allowed},
	} {
		_, err := tt.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if !tt.want(err) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func allowed(err error) bool { return err == nil }

func ofConfig(t *testing.T, config func(string) (*rest.Config, error)) kubernetes.Interface {
	t.Helper()
	cfg, err := config("node1")
	if err != nil {
		t.Fatal(err)
	}
	return apiservertest.ClientFor(t, cfg)
}

func requestToken(t *testing.T, client kubernetes.Interface, account string) string {
	t.Helper()
	got, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.Token
}

func TestServiceAccountMayDoWhatItsRoleSays(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	admin := apiservertest.Client(t, s)
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "view"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:controller:endpoint-controller"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default", Namespace: "default"}},
	}
	if _, err := admin.RbacV1().RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := bearer(t, s, requestToken(t, admin, "default"))
	apiservertest.Eventually(t, func(ctx context.Context) string {
		if _, err := account.CoreV1().Services("default").List(ctx, metav1.ListOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	if _, err := account.CoreV1().Services("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("in another namespace: got error %v, want Forbidden", err)
	}
}

func TestTokenOfADeletedAccountIsRefused(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	admin := apiservertest.Client(t, s)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "short-lived"}}
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client := bearer(t, s, requestToken(t, admin, account.Name))
	if _, err := client.Discovery().ServerGroups(); err != nil {
		t.Fatal(err)
	}
	if err := admin.CoreV1().ServiceAccounts("default").Delete(t.Context(), account.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	apiservertest.Eventually(t, func(context.Context) string {
		if _, err := client.Discovery().ServerGroups(); !apierrors.IsUnauthorized(err) {
			return "the token is still taken"
		}
		return ""
	})
}

func TestTokensStayValidOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := apiservertest.Start(t, dir)
	token := requestToken(t, apiservertest.Client(t, s), "default")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = apiservertest.Start(t, dir)
	who, err := bearer(t, s, token).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := who.Status.UserInfo.Username; got != "system:serviceaccount:default:default" {
		t.Errorf("the token is taken for %q", got)
	}
}

func TestKubeconfigIsOfAnAdministrator(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	host := s.Privileged().Host[len("https://"):]
	data, err := s.Kubeconfig("minato", host)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := apiservertest.ClientFor(t, cfg).CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}

func TestKubeletCertificateIsForTheNodesNameAndAddress(t *testing.T) {
	s := apiservertest.Start(t, t.TempDir())
	cert, err := s.KubeletServing("node1", netip.MustParseAddr("172.30.0.11"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node1", "172.30.0.11"} {
		if _, err := leaf(t, cert).Verify(x509.VerifyOptions{DNSName: name, Roots: s.ClientCA()}); err != nil {
			t.Errorf("for %s: %v", name, err)
		}
	}
}

func leaf(t *testing.T, cert tls.Certificate) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPolicyOfAnotherReleaseIsBroughtUpToDate(t *testing.T) {
	const role = "system:node"
	dir := t.TempDir()
	s := apiservertest.Start(t, dir)
	roles := apiservertest.Client(t, s).RbacV1().ClusterRoles()
	old, err := roles.Get(t.Context(), role, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := len(old.Rules)
	old.Rules = old.Rules[:1]
	if _, err := roles.Update(t.Context(), old, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	noteOtherPolicy(t, dir)

	roles = apiservertest.Client(t, apiservertest.Start(t, dir)).RbacV1().ClusterRoles()
	apiservertest.Eventually(t, func(ctx context.Context) string {
		got, err := roles.Get(ctx, role, metav1.GetOptions{})
		if err != nil || len(got.Rules) < want {
			return fmt.Sprintf("%s has %d rules, error %v", role, len(got.Rules), err)
		}
		return ""
	})
}

// noteOtherPolicy makes the store one that another release has written.
func noteOtherPolicy(t *testing.T, dir string) {
	t.Helper()
	st, err := store.Start(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Stop()
	client := st.NewClient()
	defer client.Close()
	if _, err := client.Put(t.Context(), "/minato/policy", "of another release"); err != nil {
		t.Fatal(err)
	}
}
