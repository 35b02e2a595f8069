package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// noSecrets is a SecretLister that knows none.
type noSecrets struct{}

func (noSecrets) List(labels.Selector) ([]*corev1.Secret, error)   { return nil, nil }
func (noSecrets) Secrets(string) corelisters.SecretNamespaceLister { return noSecretsInNamespace{} }

type noSecretsInNamespace struct{}

func (noSecretsInNamespace) List(labels.Selector) ([]*corev1.Secret, error) { return nil, nil }
func (noSecretsInNamespace) Get(name string) (*corev1.Secret, error) {
	return nil, errors.NewNotFound(corev1.Resource("secrets"), name)
}
