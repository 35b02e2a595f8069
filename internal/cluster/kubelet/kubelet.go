//go:build linux

package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"

	"minato/internal/netns"
)

// Config is what a node's kubelet is made from. All fields without "optional" are needed.
type Config struct {
	NodeName  string
	Addresses []netip.Addr // of the node, the primary first; at most one of each family
	Netns     netns.NS     // the node's; the zero value is a node that is the host
	PodCIDRs  []string     // optional: written to the Node where the API has none
	Labels    map[string]string

	Client         kubernetes.Interface
	Services       corelisters.ServiceLister // of all namespaces
	ServicesSynced func() bool

	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService

	ClusterDNS     []netip.Addr
	ClusterDomain  string
	HostResolvConf string // optional: path; /etc/resolv.conf

	Serving  tls.Certificate // for the address and the node's name
	ClientCA *x509.CertPool  // whoever has a certificate of it may do everything here

	StateDir   string // pod volumes, hosts files; removed with the pods
	PodLogsDir string
	CgroupRoot string // "/minato-NAME"

	LeaseInterval time.Duration // optional: 3 s
	Log           *slog.Logger
}

// Kubelet runs the pods of one node.
type Kubelet struct{ cfg Config }

// New checks the configuration. It does no I/O.
func New(cfg Config) (*Kubelet, error) { return nil, errors.ErrUnsupported }

// Run registers the node and runs its pods until ctx ends, then returns nil with the containers left running. Pods
// that run already are adopted. It needs the API only to begin; outages later are waited for.
func (k *Kubelet) Run(ctx context.Context) error { return errors.ErrUnsupported }
