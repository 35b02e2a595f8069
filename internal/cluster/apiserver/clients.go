package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// The users that get a client certificate from the instance's authority. What they
// may do is in RBAC, except for system:masters, which is allowed everything.
const (
	agentUser   = "minato-agent"
	kubeletUser = "kube-apiserver-kubelet-client"
)

// Privileged is for the components of this process that upstream trusts with
// everything. Copy it before changing it.
func (s *Server) Privileged() *rest.Config { return rest.CopyConfig(s.loopback) }

// Informers is the process's one set of informers, fed by Privileged. Components
// add theirs to it and call its Start again. It stops with the server.
func (s *Server) Informers() informers.SharedInformerFactory { return s.informers }

// PodsRead reports whether all pods have been read once, so that HasPod can say no.
func (s *Server) PodsRead() bool { return s.informers.Core().V1().Pods().Informer().HasSynced() }

// HasPod reports whether a pod of the namespace that has not ended has the address, as CoreDNS does. It costs the same
// with any number of pods: DNS may ask for each question.
func (s *Server) HasPod(namespace, addr string) bool {
	pods, err := s.informers.Core().V1().Pods().Informer().GetIndexer().IndexKeys(podAddrs, namespace+"/"+addr)
	return err == nil && len(pods) > 0
}

const podAddrs = "pods by namespace and address"

// indexPods makes the index of HasPod, before the informers start.
func (s *Server) indexPods() error {
	return s.informers.Core().V1().Pods().Informer().AddIndexers(cache.Indexers{podAddrs: func(o any) (keys []string, _ error) {
		p, ok := o.(*corev1.Pod)
		if !ok || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodUnknown {
			return nil, nil
		}
		for _, ip := range p.Status.PodIPs {
			keys = append(keys, p.Namespace+"/"+ip.IP)
		}
		return keys, nil
	}})
}

// SchedulerConfig is a client for system:kube-scheduler.
func (s *Server) SchedulerConfig() (*rest.Config, error) {
	return s.clientConfig("scheduler", user.KubeScheduler)
}

// AgentConfig is a client for the node agents.
func (s *Server) AgentConfig() (*rest.Config, error) { return s.clientConfig("agent", agentUser) }

// NodeConfig is a client for the kubelet of a node.
func (s *Server) NodeConfig(node string) (*rest.Config, error) {
	return s.clientConfig("node-"+node, "system:node:"+node, user.NodesGroup)
}

func (s *Server) clientConfig(name, user string, groups ...string) (*rest.Config, error) {
	pair, err := s.pki.Client("client-"+name, user, groups...)
	if err != nil {
		return nil, err
	}
	cfg := rest.CopyConfig(s.loopback)
	cfg.BearerToken, cfg.UserAgent = "", user
	cfg.CertData, cfg.KeyData = pair.CertPEM, pair.KeyPEM
	return cfg, nil
}

// Kubeconfig is a kubeconfig file for the administrator, with one context of the
// given name which reaches the API at address (host:port).
func (s *Server) Kubeconfig(name, address string) ([]byte, error) {
	pair, err := s.pki.Client("client-admin", "minato-admin", user.SystemPrivilegedGroup)
	if err != nil {
		return nil, err
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: "https://" + address, CertificateAuthorityData: s.pki.CertPEM()}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: pair.CertPEM, ClientKeyData: pair.KeyPEM}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return data, nil
}

// KubeletServing is the serving certificate of a node's kubelet, for its name and
// addresses.
func (s *Server) KubeletServing(node string, addrs ...netip.Addr) (tls.Certificate, error) {
	pair, err := s.pki.Server("kubelet-"+node, []string{node}, addrs)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pair.TLS()
}

// ClientCA is what a kubelet verifies its clients with. The API presents itself to
// kubelets as kube-apiserver-kubelet-client in system:masters.
func (s *Server) ClientCA() *x509.CertPool { return s.pki.Pool() }

// kubeletClient says how the API reaches kubelets for logs, exec and the like.
func (s *Server) kubeletClient() (kubeletclient.KubeletClientConfig, error) {
	pair, err := s.pki.Client("client-kubelet", kubeletUser, user.SystemPrivilegedGroup)
	if err != nil {
		return kubeletclient.KubeletClientConfig{}, err
	}
	return kubeletclient.KubeletClientConfig{
		Port: 10250, PreferredAddressTypes: []string{"InternalIP"}, HTTPTimeout: 5 * time.Second,
		TLSClientConfig: kubeletclient.KubeletTLSConfig{CertFile: pair.File, KeyFile: pair.File, CAFile: s.pki.File()},
		Lookup: func(egressselector.NetworkContext) (utilnet.DialFunc, error) {
			return func(ctx context.Context, network, addr string) (net.Conn, error) {
				return s.cfg.Dial(ctx, network, addr)
			}, nil
		},
	}, nil
}

// withoutManagedFields drops what no component here reads and every object carries.
func withoutManagedFields(obj any) (any, error) {
	if o, ok := obj.(interface {
		SetManagedFields([]metav1.ManagedFieldsEntry)
	}); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// CA is the certificate that signed everything the instance serves, as PEM.
func (s *Server) CA() []byte { return s.pki.CertPEM() }
