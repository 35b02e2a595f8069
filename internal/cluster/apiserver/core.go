package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	api "k8s.io/kubernetes/pkg/apis/core"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpointsstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	limitrangestore "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	pvstore "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	pvcstore "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplatestore "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	controllerstore "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	resourcequotastore "k8s.io/kubernetes/pkg/registry/core/resourcequota/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccountstore "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// eventTTL is how long an Event is kept, as upstream's default.
const eventTTL = time.Hour

// core builds the resources of the group "".
type core struct {
	options   generic.RESTOptionsGetter
	cfg       Config
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
	authz     authorizer.Authorizer
	tokens    tokens
	kubelet   kubeletclient.KubeletClientConfig
	transport http.RoundTripper // to pods and Services

	resources  map[string]rest.Storage
	clusterIPs map[api.IPFamily]ipallocator.Interface
	kubelets   kubeletclient.ConnectionInfoGetter
}

func (c *core) build(ctx context.Context) (map[string]rest.Storage, error) {
	c.resources = map[string]rest.Storage{}
	node, err := nodestore.NewStorage(c.options, c.kubelet, c.transport)
	if err != nil {
		return nil, err
	}
	c.resources["nodes"], c.resources["nodes/status"], c.resources["nodes/proxy"] = node.Node, node.Status, node.Proxy
	c.kubelets = node.KubeletConnectionInfo
	pod, err := podstore.NewStorage(c.options, node.KubeletConnectionInfo, c.transport, c.client.PolicyV1(), c.authz)
	if err != nil {
		return nil, err
	}
	c.addPods(pod)
	if err := c.addServices(ctx, pod); err != nil {
		return nil, err
	}
	if err := c.addServiceAccounts(node, pod); err != nil {
		return nil, err
	}
	return c.resources, c.addPlain()
}

func (c *core) addPods(pod podstore.PodStorage) {
	for name, storage := range map[string]rest.Storage{
		"pods": pod.Pod, "pods/attach": pod.Attach, "pods/status": pod.Status, "pods/log": pod.Log,
		"pods/exec": pod.Exec, "pods/portforward": pod.PortForward, "pods/proxy": pod.Proxy,
		"pods/binding": pod.Binding, "pods/eviction": pod.Eviction, "bindings": pod.LegacyBinding,
		"pods/ephemeralcontainers": pod.EphemeralContainers, "pods/resize": pod.Resize,
	} {
		c.resources[name] = storage
	}
}

func (c *core) addServices(ctx context.Context, pod podstore.PodStorage) error {
	endpoints, err := endpointsstore.NewREST(c.options)
	if err != nil {
		return err
	}
	// A ClusterIP is taken by creating an IPAddress of that name: no two Services can
	// have it, and a crash leaves at most an address that the repair loop frees.
	networking := c.informers.Networking().V1()
	c.clusterIPs = map[api.IPFamily]ipallocator.Interface{}
	var families []api.IPFamily
	for _, cidr := range c.cfg.ServiceCIDRs {
		ips, err := ipallocator.NewMetaAllocator(c.client.NetworkingV1(), networking.ServiceCIDRs(), networking.IPAddresses(), cidr.Addr().Is6(), nil)
		if err != nil {
			return fmt.Errorf("making the ClusterIP allocator: %w", err)
		}
		families, c.clusterIPs[ips.IPFamily()] = append(families, ips.IPFamily()), ips
	}
	ports, err := portallocator.NewInMemory(utilnet.PortRange{Base: int(c.cfg.NodePorts.First), Size: int(c.cfg.NodePorts.Last) - int(c.cfg.NodePorts.First) + 1})
	if err != nil {
		return fmt.Errorf("making the NodePort allocator: %w", err)
	}
	svc, status, proxy, err := servicestore.NewREST(c.options, families[0], c.clusterIPs, ports, endpoints, pod.Pod, c.transport)
	if err != nil {
		return err
	}
	if err := reservePorts(ctx, svc, ports); err != nil {
		return fmt.Errorf("reading the NodePorts in use: %w", err)
	}
	c.resources["endpoints"] = endpoints
	c.resources["services"], c.resources["services/status"], c.resources["services/proxy"] = svc, status, proxy
	return nil
}

// reservePorts marks what the stored Services hold. The allocator lives in memory,
// so this must be complete before the first request is served.
func reservePorts(ctx context.Context, svc *servicestore.REST, ports portallocator.Interface) error {
	err := wait.PollUntilContextCancel(ctx, 5*time.Millisecond, true, func(context.Context) (bool, error) {
		return svc.Store.ReadinessCheck() == nil, nil // its watch cache fills in the background
	})
	if err != nil {
		return err
	}
	list, err := svc.Store.List(genericapirequest.WithNamespace(ctx, ""), &metainternalversion.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range list.(*api.ServiceList).Items {
		held := []int32{s.Spec.HealthCheckNodePort}
		for _, p := range s.Spec.Ports {
			held = append(held, p.NodePort)
		}
		for _, port := range held {
			// One port may be held twice, for TCP and UDP; one outside the range stays
			// valid after the range was changed.
			err := ports.Allocate(int(port))
			if outside := new(portallocator.ErrNotInRange); port == 0 || errors.Is(err, portallocator.ErrAllocated) || errors.As(err, &outside) {
				continue
			}
			if err != nil {
				return fmt.Errorf("port %d of Service %s/%s: %w", port, s.Namespace, s.Name, err)
			}
		}
	}
	return nil
}

func (c *core) addServiceAccounts(node *nodestore.NodeStorage, pod podstore.PodStorage) error {
	secrets, err := secretstore.NewREST(c.options)
	if err != nil {
		return err
	}
	const extend = serviceaccount.ExpirationExtensionSeconds * time.Second
	accounts, err := serviceaccountstore.NewREST(c.options, c.tokens.generator, c.tokens.audiences(), 0, pod.Pod.Store, secrets.Store, node.Node.Store, true, extend)
	if err != nil {
		return err
	}
	c.resources["secrets"], c.resources["serviceaccounts"], c.resources["serviceaccounts/token"] = secrets, accounts, accounts.Token
	return nil
}

// addPlain adds the resources that depend on no other.
func (c *core) addPlain() error {
	var errs []error
	add := func(name string, storage rest.Storage, err error) {
		c.resources[name] = storage
		errs = append(errs, err)
	}
	configMaps, err := configmapstore.NewREST(c.options)
	add("configmaps", configMaps, err)
	events, err := eventstore.NewREST(c.options, uint64(eventTTL.Seconds()))
	add("events", events, err)
	limits, err := limitrangestore.NewREST(c.options)
	add("limitranges", limits, err)
	templates, err := podtemplatestore.NewREST(c.options)
	add("podtemplates", templates, err)
	namespaces, namespaceStatus, finalize, err := namespacestore.NewREST(c.options)
	add("namespaces", namespaces, err)
	add("namespaces/status", namespaceStatus, nil)
	add("namespaces/finalize", finalize, nil)
	quotas, quotaStatus, err := resourcequotastore.NewREST(c.options)
	add("resourcequotas", quotas, err)
	add("resourcequotas/status", quotaStatus, nil)
	volumes, volumeStatus, err := pvstore.NewREST(c.options)
	add("persistentvolumes", volumes, err)
	add("persistentvolumes/status", volumeStatus, nil)
	claims, claimStatus, err := pvcstore.NewREST(c.options)
	add("persistentvolumeclaims", claims, err)
	add("persistentvolumeclaims/status", claimStatus, nil)
	replication, err := controllerstore.NewStorage(c.options)
	add("replicationcontrollers", replication.Controller, err)
	add("replicationcontrollers/status", replication.Status, nil)
	add("replicationcontrollers/scale", replication.Scale, nil)
	return errors.Join(errs...)
}

// firstAddr is the ClusterIP of the kubernetes Service.
func firstAddr(services netip.Prefix) netip.Addr { return services.Masked().Addr().Next() }

// dialTransport reaches pods and Services, whose certificates nobody here can know.
func dialTransport(dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	return &http.Transport{DialContext: dial, TLSClientConfig: insecureTLS(), IdleConnTimeout: 30 * time.Second}
}
