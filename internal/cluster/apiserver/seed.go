package apiserver

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/networking"
	scheduling "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/controlplane/controller/defaultservicecidr"
)

// systemNamespaces exist from the start. MetalLB's is among them, so that manifests
// which configure it apply to a fresh cluster.
var systemNamespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, "metallb-system"}

// seeded is one object that must exist before the API serves.
type seeded struct {
	resource schema.GroupResource
	object   interface {
		runtime.Object
		metav1.Object
	}
}

// policyKey holds the fingerprint of the policy that the store was last brought to.
const policyKey = "/minato/policy"

// seed writes what is missing of the objects that a cluster starts with, in one
// transaction: through the API, the some 190 of them would take most of a second.
func (s *Server) seed(ctx context.Context, options generic.RESTOptionsGetter) error {
	policy := bootstrapPolicy()
	objects := append(s.firstObjects(), policy.seeds()...)
	lookups := []clientv3.Op{clientv3.OpGet(policyKey)}
	for _, o := range objects {
		lookups = append(lookups, clientv3.OpGet(o.key(), clientv3.WithCountOnly()))
	}
	found, err := s.etcd.Txn(ctx).Then(lookups...).Commit()
	if err != nil {
		return fmt.Errorf("looking for the cluster's first objects: %w", err)
	}
	var writes []clientv3.Op
	if known := found.Responses[0].GetResponseRange().Kvs; len(known) == 0 {
		writes = append(writes, clientv3.OpPut(policyKey, policy.fingerprint()))
	} else {
		s.newPolicy = string(known[0].Value) != policy.fingerprint()
	}
	for i, o := range objects {
		if found.Responses[i+1].GetResponseRange().Count > 0 {
			continue
		}
		data, err := o.encode(options)
		if err != nil {
			return err
		}
		writes = append(writes, clientv3.OpPut(o.key(), string(data)))
	}
	if _, err := s.etcd.Txn(ctx).Then(writes...).Commit(); err != nil {
		return fmt.Errorf("writing the cluster's first objects: %w", err)
	}
	return s.checkRange(ctx, options)
}

// checkRange refuses another range of ClusterIPs than the instance was made with: the
// Services in the old one would keep addresses that no node serves.
func (s *Server) checkRange(ctx context.Context, options generic.RESTOptionsGetter) error {
	resource := networkingv1.Resource("servicecidrs")
	rest, err := options.GetRESTOptions(resource, nil)
	if err != nil {
		return err
	}
	got, err := s.etcd.Get(ctx, path.Join(keyPrefix, resourcePrefix(resource), defaultservicecidr.DefaultServiceCIDRName))
	if err != nil || len(got.Kvs) == 0 {
		return fmt.Errorf("reading the range of ClusterIPs: %w", err)
	}
	obj, err := runtime.Decode(rest.StorageConfig.Codec, got.Kvs[0].Value)
	if err != nil {
		return fmt.Errorf("reading the range of ClusterIPs: %w", err)
	}
	if cidrs := obj.(*networking.ServiceCIDR).Spec.CIDRs; !slices.Equal(cidrs, s.ranges()) {
		return fmt.Errorf("%w: it has %s, not %s", ErrServiceCIDR, strings.Join(cidrs, ","), strings.Join(s.ranges(), ","))
	}
	return nil
}

// ranges are those of ClusterIPs, as the object has them.
func (s *Server) ranges() (texts []string) {
	for _, p := range s.cfg.ServiceCIDRs {
		texts = append(texts, p.Masked().String())
	}
	return texts
}

func (o seeded) key() string {
	return path.Join(keyPrefix, resourcePrefix(o.resource), o.object.GetNamespace(), o.object.GetName())
}

// encode gives the object what the API would have given it, and the stored form.
func (o seeded) encode(options generic.RESTOptionsGetter) ([]byte, error) {
	o.object.SetUID(types.UID(uuid.NewString()))
	o.object.SetCreationTimestamp(metav1.Time{Time: time.Now().Truncate(time.Second)})
	legacyscheme.Scheme.Default(o.object)
	rest, err := options.GetRESTOptions(o.resource, nil)
	if err != nil {
		return nil, err
	}
	data, err := runtime.Encode(rest.StorageConfig.Codec, o.object)
	if err != nil {
		return nil, fmt.Errorf("encoding %s %s: %w", o.resource, o.object.GetName(), err)
	}
	return data, nil
}

// firstObjects are those that controllers would make a little later, made at once so
// that the first kubectl command can use them, and the range of ClusterIPs.
func (s *Server) firstObjects() []seeded {
	cidr := &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: defaultservicecidr.DefaultServiceCIDRName, Finalizers: []string{"networking.k8s.io/service-cidr-finalizer"}},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: s.ranges()},
	}
	cidr.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	objects := []seeded{{networkingv1.Resource("servicecidrs"), cidr}}
	for _, class := range scheduling.SystemPriorityClasses() {
		objects = append(objects, seeded{schedulingv1.Resource("priorityclasses"), class.DeepCopy()})
	}
	for _, name := range systemNamespaces {
		objects = append(objects,
			seeded{corev1.Resource("namespaces"), &corev1.Namespace{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}},
				Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
				Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
			}},
			seeded{corev1.Resource("serviceaccounts"), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: name}}},
		)
	}
	return objects
}
