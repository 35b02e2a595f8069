package source_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"minato/internal/model"
	"minato/internal/source"
)

// newTLSSecret holds a new certificate for a host.
func newTLSSecret(t *testing.T, name, host string) (o *corev1.Secret, keyText string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host},
		DNSNames: []string{host}, NotAfter: time.Date(2040, 1, 2, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		},
	}, new(big.Int).SetBytes(private).String() // as %v would print it
}

func secret(t *testing.T, o *corev1.Secret) *source.SecretObject {
	t.Helper()
	s, ok := source.Secret(o)
	if !ok || s.Problem != "" {
		t.Fatalf("not converted: %t %q", ok, s.Problem)
	}
	return s
}

func newIngress(name, secret string) *model.Ingress {
	class := "minato"
	return source.Ingress(&networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       networkingv1.IngressSpec{IngressClassName: &class, TLS: []networkingv1.IngressTLS{{SecretName: secret}}},
	})
}

// withIngresses makes a Builder that has read everything, and has minato's class.
func withIngresses(secrets []*source.SecretObject, all ...*model.Ingress) *source.Builder {
	b := complete()
	b.Update(func(t *source.Batch) {
		t.ReplaceIngressClasses([]*source.ClassObject{{Name: "minato", Served: true}})
		t.ReplaceSecrets(secrets)
		t.ReplaceIngresses(all)
	})
	return b
}

var site = model.IngressName{Namespace: "default", Name: "site"}

func TestIngressesAreShownWhenClassesAndSecretsWereReadToo(t *testing.T) {
	b := complete()
	steps := []func(*source.Batch){
		func(b *source.Batch) { b.ReplaceIngresses([]*model.Ingress{newIngress("site", "")}) },
		func(b *source.Batch) { b.ReplaceIngressClasses([]*source.ClassObject{{Name: "minato", Served: true}}) },
	}
	for i, step := range steps {
		b.Update(step)
		if s := b.Current(); s.IngressesKnown || s.Ingress(site) != nil {
			t.Fatalf("after step %d there are Ingresses", i)
		}
	}
	b.Update(func(b *source.Batch) { b.ReplaceSecrets(nil) })
	if s := b.Current(); !s.IngressesKnown || s.Ingress(site) == nil || !s.Ingress(site).Served {
		t.Errorf("known %t\n%s", s.IngressesKnown, text(s))
	}
}

func TestAChangedSecretChangesOnlyItsIngresses(t *testing.T) {
	one, _ := newTLSSecret(t, "one", "one.example.com")
	two, _ := newTLSSecret(t, "two", "two.example.com")
	b := withIngresses([]*source.SecretObject{secret(t, one), secret(t, two)}, newIngress("site", "one"), newIngress("other", "two"))
	before := b.Current()

	again := secret(t, one) // as a heartbeat would bring it
	b.Update(func(b *source.Batch) { b.SetSecret(again) })
	if b.Current() != before {
		t.Error("the same Secret made a revision")
	}
	renewed, _ := newTLSSecret(t, "one", "one.example.com")
	b.Update(func(batch *source.Batch) { batch.SetSecret(secret(t, renewed)) })
	after := b.Current()
	other := model.IngressName{Namespace: "default", Name: "other"}
	if after.Ingress(other) != before.Ingress(other) {
		t.Error("an Ingress of another Secret changed")
	}
	if c := after.Ingress(site).TLS[0].Certificate; c == nil || c == before.Ingress(site).TLS[0].Certificate {
		t.Error("the Ingress still has the old certificate")
	}
	b.Update(func(b *source.Batch) { b.DeleteSecret(source.ObjectName{Namespace: "default", Name: "one"}) })
	if i := b.Current().Ingress(site); i.TLS[0].Certificate != nil || len(i.Warnings) != 1 {
		t.Errorf("without its Secret: %+v", i)
	}
}

func TestKeysAreInNoText(t *testing.T) {
	o, key := newTLSSecret(t, "one", "one.example.com")
	s := secret(t, o)
	b := withIngresses([]*source.SecretObject{s}, newIngress("site", "one"))
	i := b.Current().Ingress(site)
	cert := i.TLS[0].Certificate
	for _, shown := range []string{text(b.Current()), fmt.Sprintf("%+v", i), fmt.Sprintf("%#v", *cert), fmt.Sprintf("%v", cert.Key), fmt.Sprintf("%+v", *s)} {
		if strings.Contains(shown, key) || strings.Contains(shown, "PrivateKey{Pub") {
			t.Errorf("the key is in: %s", shown)
		}
	}
	if cert.Key.Reveal() == nil {
		t.Error("the key is not there at all")
	}
}

func TestSecretsThatAreNoCertificate(t *testing.T) {
	good, _ := newTLSSecret(t, "one", "one.example.com")
	other, _ := newTLSSecret(t, "two", "two.example.com")
	for name, c := range map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"no key":      {func(s *corev1.Secret) { delete(s.Data, "tls.key") }, "tls.key is empty"},
		"no chain":    {func(s *corev1.Secret) { s.Data["tls.crt"] = nil }, "tls.crt is empty"},
		"no PEM":      {func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("x") }, "PEM"},
		"another key": {func(s *corev1.Secret) { s.Data["tls.key"] = other.Data["tls.key"] }, "does not match"},
	} {
		o := good.DeepCopy()
		c.change(o)
		if s, ok := source.Secret(o); !ok || s.Certificate != nil || !strings.Contains(s.Problem, c.want) {
			t.Errorf("%s: %t %+v", name, ok, s)
		}
	}
}
