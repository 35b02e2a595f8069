package statuswriter

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applydiscoveryv1 "k8s.io/client-go/applyconfigurations/discovery/v1"

	"minato/internal/model"
)

// Front is the Service of type LoadBalancer in front of the proxies. It exists while there is an Ingress to serve, so
// that it takes no address before.
var Front = model.ServiceName{Namespace: metav1.NamespaceSystem, Name: "minato-ingress"}

// frontManager owns what is written here. Its label marks objects that may be deleted again.
const frontManager = "minato-ingress"

var frontPorts = []struct {
	name string
	port int32
}{{"http", 80}, {"https", 443}}

// frontSlice holds the endpoints of one IP family: a slice has one, and no other later.
type frontSlice struct {
	ipv6 bool
	name string
	kind discoveryv1.AddressType
}

var frontSlices = []frontSlice{
	{false, Front.Name, discoveryv1.AddressTypeIPv4},
	{true, Front.Name + "-ipv6", discoveryv1.AddressTypeIPv6},
}

// front makes the Service and its endpoints as they should be, or deletes them.
func (w *IngressWriter) front(ctx context.Context, s *model.Snapshot, nodes []*model.Node) error {
	have := s.Service(Front)
	switch {
	case w.plan.Empty() && have == nil:
		return nil
	case w.plan.Empty():
		return w.deleteFront(ctx)
	case have == nil:
		if err := w.createFront(ctx); err != nil {
			return err
		}
	}
	for _, f := range frontSlices {
		if !slices.Equal(f.want(nodes), f.have(have)) {
			if err := w.applyEndpoints(ctx, f, nodes); err != nil {
				return err
			}
		}
	}
	return nil
}

// want are the addresses of the family at which the proxies of nodes listen, sorted.
func (f frontSlice) want(nodes []*model.Node) (addrs []netip.Addr) {
	for _, n := range nodes {
		if a := n.Addr(f.ipv6); a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// have are those that the Service has, sorted; it may be nil.
func (f frontSlice) have(svc *model.Service) (addrs []netip.Addr) {
	if svc == nil {
		return nil
	}
	for b := range svc.Backends(frontPorts[0].name, model.TCP) {
		if a := b.Addr.Addr(); a.Is6() == f.ipv6 {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// createFront: policy Local keeps the client's address, since each node's proxy is that node's own endpoint. It needs
// no NodePorts, the proxies have ports of the nodes already. It has an address of each family that the cluster has, as
// the proxies do. A Service of that name that is not ours stays as it is.
func (w *IngressWriter) createFront(ctx context.Context) error {
	no, families := false, corev1.IPFamilyPolicyPreferDualStack
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: Front.Name, Namespace: Front.Namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": frontManager}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			AllocateLoadBalancerNodePorts: &no, IPFamilyPolicy: &families,
		},
	}
	for _, p := range frontPorts {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: p.name, Port: p.port, TargetPort: intstr.FromInt32(p.port), Protocol: corev1.ProtocolTCP})
	}
	_, err := w.cfg.Client.CoreV1().Services(Front.Namespace).Create(ctx, svc, metav1.CreateOptions{FieldManager: frontManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating Service %s: %w", Front, err)
	}
	return nil
}

func (w *IngressWriter) applyEndpoints(ctx context.Context, f frontSlice, nodes []*model.Node) error {
	slice := applydiscoveryv1.EndpointSlice(f.name, Front.Namespace).
		WithLabels(map[string]string{discoveryv1.LabelServiceName: Front.Name, discoveryv1.LabelManagedBy: frontManager}).
		WithAddressType(f.kind)
	for _, p := range frontPorts {
		slice.WithPorts(applydiscoveryv1.EndpointPort().WithName(p.name).WithPort(p.port).WithProtocol(corev1.ProtocolTCP))
	}
	for _, n := range nodes {
		if a := n.Addr(f.ipv6); a.IsValid() {
			slice.WithEndpoints(applydiscoveryv1.Endpoint().WithAddresses(a.String()).WithNodeName(n.Name).
				WithConditions(applydiscoveryv1.EndpointConditions().WithReady(true)))
		}
	}
	svc, err := w.cfg.Client.CoreV1().Services(Front.Namespace).Get(ctx, Front.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the next snapshot says so, and it is made anew
	}
	if err == nil && svc.Labels["app.kubernetes.io/managed-by"] != frontManager {
		return nil
	}
	if err == nil {
		_, err = w.cfg.Client.DiscoveryV1().EndpointSlices(Front.Namespace).Apply(ctx, slice, metav1.ApplyOptions{FieldManager: frontManager, Force: true})
	}
	if err != nil {
		return fmt.Errorf("writing the endpoints of Service %s: %w", Front, err)
	}
	return nil
}

// deleteFront deletes what createFront and applyEndpoints have made.
func (w *IngressWriter) deleteFront(ctx context.Context) error {
	services := w.cfg.Client.CoreV1().Services(Front.Namespace)
	svc, err := services.Get(ctx, Front.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && svc.Labels["app.kubernetes.io/managed-by"] != frontManager {
		return nil
	}
	if err == nil {
		err = services.Delete(ctx, Front.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &svc.UID}})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting Service %s: %w", Front, err)
	}
	for _, f := range frontSlices {
		err := w.cfg.Client.DiscoveryV1().EndpointSlices(Front.Namespace).Delete(ctx, f.name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the endpoints of Service %s: %w", Front, err)
		}
	}
	return nil
}
