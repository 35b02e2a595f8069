package kube

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"minato/internal/model"
	"minato/internal/source"
)

// ingressReflectors watch Ingresses and what belongs to them. Of Secrets only certificates are asked for.
func ingressReflectors(client kubernetes.Interface, q *queue) []*cache.Reflector {
	networking := client.NetworkingV1()
	return []*cache.Reflector{
		reflector(client, networking.Ingresses(""), &networkingv1.Ingress{}, &store[*networkingv1.Ingress, *model.Ingress]{
			queue:   q,
			convert: func(o *networkingv1.Ingress) (*model.Ingress, bool) { return source.Ingress(o), true },
			set:     (*source.Batch).SetIngress,
			replace: (*source.Batch).ReplaceIngresses,
			delete:  func(b *source.Batch, n source.ObjectName) { b.DeleteIngress(model.IngressName(n)) },
		}),
		reflector(client, networking.IngressClasses(), &networkingv1.IngressClass{}, &store[*networkingv1.IngressClass, *source.ClassObject]{
			queue:   q,
			convert: func(o *networkingv1.IngressClass) (*source.ClassObject, bool) { return source.IngressClass(o), true },
			set:     (*source.Batch).SetIngressClass,
			replace: (*source.Batch).ReplaceIngressClasses,
			delete:  func(b *source.Batch, n source.ObjectName) { b.DeleteIngressClass(n.Name) },
		}),
		reflector(client, only(client.CoreV1().Secrets(""), certificates), &corev1.Secret{}, &store[*corev1.Secret, *source.SecretObject]{
			queue:   q,
			convert: source.Secret,
			set:     (*source.Batch).SetSecret,
			replace: (*source.Batch).ReplaceSecrets,
			delete:  (*source.Batch).DeleteSecret,
		}),
	}
}

func certificates(o *metav1.ListOptions) {
	o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)).String()
}
