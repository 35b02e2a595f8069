package source

import (
	"bytes"
	"crypto/tls"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"minato/internal/model"
)

// SecretObject is a Secret of type kubernetes.io/tls: a certificate, or the reason why it is none.
type SecretObject struct {
	Name        ObjectName
	Certificate *model.Certificate
	Problem     string
}

// Secret converts an API object; ok is false for one of another type. It is pure. The key goes no further than the
// certificate, and no error text holds any of it.
func Secret(o *corev1.Secret) (out *SecretObject, ok bool) {
	if o.Type != corev1.SecretTypeTLS {
		return nil, false
	}
	out = &SecretObject{Name: ObjectName{o.Namespace, o.Name}}
	cert, key := o.Data[corev1.TLSCertKey], o.Data[corev1.TLSPrivateKeyKey]
	switch {
	case len(bytes.TrimSpace(cert)) == 0:
		out.Problem = "its tls.crt is empty"
	case len(bytes.TrimSpace(key)) == 0:
		out.Problem = "its tls.key is empty"
	default:
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			out.Problem = err.Error()
			break
		}
		out.Certificate = &model.Certificate{
			Chain: pair.Certificate, Key: model.HidePrivateKey(pair.PrivateKey), NotAfter: pair.Leaf.NotAfter, Names: pair.Leaf.DNSNames,
		}
		if cn := pair.Leaf.Subject.CommonName; len(pair.Leaf.DNSNames) == 0 && cn != "" {
			out.Certificate.Names = []string{cn}
		}
	}
	return out, true
}

// equal compares what the Secrets say. Equal chains have the same key, because the leaf holds its public half.
func (s *SecretObject) equal(o *SecretObject) bool {
	if s.Problem != o.Problem || (s.Certificate == nil) != (o.Certificate == nil) {
		return false
	}
	return s.Certificate == nil || slices.EqualFunc(s.Certificate.Chain, o.Certificate.Chain, bytes.Equal)
}

// ClassObject is an IngressClass.
type ClassObject struct {
	Name   string
	Served bool // its controller is minato
}

// IngressClass converts an API object. It is pure.
func IngressClass(o *networkingv1.IngressClass) *ClassObject {
	return &ClassObject{Name: o.Name, Served: o.Spec.Controller == IngressController}
}
