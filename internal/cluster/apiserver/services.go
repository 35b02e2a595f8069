package apiserver

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// How often the system's Services are looked at: often until they are first there,
// then as often as upstream does, and when one was deleted.
const (
	firstLook = 20 * time.Millisecond
	nextLook  = 10 * time.Second
)

// keepServices makes default/kubernetes, with its endpoints, and kube-system/kube-dns
// exist until ctx ends.
func (s *Server) keepServices(ctx context.Context) {
	deleted := make(chan struct{}, 1)
	_, err := s.informers.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) {
		select {
		case deleted <- struct{}{}:
		default:
		}
	}})
	if err != nil { // only of an informer that has stopped, and then ctx has ended
		return
	}
	endpoints := reconcilers.NewMasterCountEndpointReconciler(1, reconcilers.NewEndpointsAdapter(s.client.CoreV1(), s.client.DiscoveryV1()))
	for every := firstLook; ; {
		select {
		case <-ctx.Done():
			return
		case <-deleted:
		case <-time.After(every):
		}
		err := s.ensureServices(ctx, endpoints)
		if err == nil && every == firstLook {
			every = nextLook
			close(s.systemServices)
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("making the system's Services", "err", err)
		}
	}
}

func (s *Server) ensureServices(ctx context.Context, endpoints reconcilers.EndpointReconciler) error {
	// Of a Service that gets an address of one family but none of the other, upstream does not give back the one; after a
	// minute its repair loop does.
	if err := s.allocates(); err != nil {
		return fmt.Errorf("waiting for addresses of Services: %w", err)
	}
	port := int32(s.cfg.Advertise.Port())
	for _, svc := range []*corev1.Service{kubernetesService(s.cfg), dnsService(s.cfg)} {
		_, err := s.client.CoreV1().Services(svc.Namespace).Get(ctx, svc.Name, metav1.GetOptions{})
		if errors.IsNotFound(err) {
			_, err = s.client.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{})
		}
		if err != nil && !errors.IsAlreadyExists(err) {
			return fmt.Errorf("creating the Service %s: %w", svc.Name, err)
		}
	}
	ports := []corev1.EndpointPort{{Name: "https", Port: port, Protocol: corev1.ProtocolTCP}}
	if err := endpoints.ReconcileEndpoints("kubernetes", s.cfg.Advertise.Addr().AsSlice(), ports, true); err != nil {
		return fmt.Errorf("setting the endpoint of the Service kubernetes: %w", err)
	}
	return nil
}

func kubernetesService(cfg Config) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: firstAddr(cfg.ServiceCIDRs[0]).String(),
			Ports:     []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(int32(cfg.Advertise.Port()))}},
		},
	}
}

// dnsService has no selector: the nodes answer its address themselves.
func dnsService(cfg Config) *corev1.Service {
	policy := corev1.IPFamilyPolicySingleStack
	var addrs []string
	for _, a := range cfg.DNSAddrs {
		addrs = append(addrs, a.String())
	}
	if len(addrs) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-dns", Namespace: metav1.NamespaceSystem, Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: addrs[0], ClusterIPs: addrs, IPFamilyPolicy: &policy,
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
				{Name: "metrics", Port: 9153, Protocol: corev1.ProtocolTCP},
			},
		},
	}
}
