// Package apiserver is the Kubernetes API of one machine: upstream's own REST
// registries, admission and authorization on a bare k8s.io/apiserver, with an etcd
// inside this process. docs/decisions/0001-embedded-api.md says why so and not
// otherwise. It runs no controllers and no scheduler, and it creates no Nodes.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"

	"minato/internal/cluster/apiserver/kubeversion"
	"minato/internal/cluster/apiserver/metrics"
	"minato/internal/cluster/apiserver/pki"
	"minato/internal/cluster/apiserver/store"
)

// Config is everything the API needs to know. All fields must be set.
type Config struct {
	// Dir is the instance's state folder; etcd and pki are kept below it.
	Dir string
	// Listeners are served together with TLS. The first must be reachable from this
	// process; the components in it use it. The Server closes them, even if Start fails.
	Listeners []net.Listener
	// Advertise is the endpoint of default/kubernetes, as pods and nodes reach it.
	Advertise netip.AddrPort
	// ServiceCIDRs give ClusterIPs, one range of each IP family. The first is that of
	// Services which ask for no family; its first address is the kubernetes Service's.
	ServiceCIDRs []netip.Prefix
	// DNSAddrs are the ClusterIPs of kube-system/kube-dns, inside ServiceCIDRs.
	DNSAddrs []netip.Addr
	// ClusterDomain is the DNS zone of the cluster, without a final dot.
	ClusterDomain string
	// NodePorts is the range for NodePort Services.
	NodePorts PortRange
	// Dial connects to kubelets, pods and Services. It is called concurrently.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger
}

// PortRange is from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// ErrServiceCIDR says that an instance was made with other ServiceCIDRs.
var ErrServiceCIDR = errors.New("the ranges of ClusterIPs cannot be changed, only by deleting the instance")

// Server is a running API. Its methods are safe for concurrent use.
type Server struct {
	cfg       Config
	listener  net.Listener
	store     *store.Store
	etcd      *clientv3.Client // of the store
	pki       *pki.Authority
	loopback  *rest.Config
	own       *ownDialer // of loopback
	client    kubernetes.Interface
	informers informers.SharedInformerFactory
	crds      *apiextensions.CustomResourceDefinitions
	metrics   *runtime.Scheme // of metrics.k8s.io
	newPolicy bool            // the store has the policy of another release

	clusterIPs     map[api.IPFamily]ipallocator.Interface
	systemServices chan struct{} // closed when they are there

	cancel  context.CancelFunc
	running sync.WaitGroup // the API and everything that talks to it
	stop    sync.Once
	done    chan struct{}
	err     error // valid after done is closed
}

// Start opens the store, fills it at the first start, and serves. It returns when
// requests are taken; Ready waits for the rest. The API stops, and after it the
// store, when ctx ends or Stop is called. A second instance on the same Dir gets
// store.ErrLocked. One process can run one API: upstream keeps settings in globals.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if len(cfg.Listeners) == 0 {
		return nil, errors.New("the API needs at least one listener")
	}
	s := &Server{cfg: cfg, listener: join(cfg.Listeners), metrics: metrics.Scheme(), own: newOwnDialer(), systemServices: make(chan struct{}), done: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		s.own.end()
		s.listener.Close()
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	bridgeLogs(s.cfg.Log)
	if err := kubeversion.Set(); err != nil {
		return err
	}
	if err := setFeatures(); err != nil {
		return err
	}
	var err error
	if s.pki, err = pki.Open(filepath.Join(s.cfg.Dir, "pki")); err != nil {
		return err
	}
	if s.store, err = store.Start(ctx, store.Config{Dir: filepath.Join(s.cfg.Dir, "etcd"), Log: s.cfg.Log}); err != nil {
		return err
	}
	s.etcd = s.store.NewClient()
	generic, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.run(ctx, generic)
	return nil
}

// run owns the goroutines of the server until the store is closed.
func (s *Server) run(ctx context.Context, generic *genericapiserver.GenericAPIServer) {
	ctx, s.cancel = context.WithCancel(ctx)
	prepared := generic.PrepareRun()
	s.repairClusterIPs(ctx)
	// What is registered by now belongs to the API, and so must not end with a
	// component that starts the shared informers for its own.
	s.informers.Start(ctx.Done())
	s.running.Go(func() {
		defer s.cancel()
		defer s.own.end()
		if err := prepared.RunWithContext(ctx); err != nil {
			s.err = fmt.Errorf("running the API: %w", err)
		}
	})
	s.running.Go(func() { s.keepServices(ctx) })
	go func() {
		select {
		case <-s.store.Stopped():
			s.cancel()
			s.running.Wait()
			if err := s.store.Err(); err != nil {
				s.err = err // more than what it made of the API
			} else {
				s.err = errors.Join(s.err, errors.New("the store stopped by itself"))
			}
		case <-ctx.Done():
			s.running.Wait()
		}
		s.close()
		close(s.done)
	}()
}

// close ends the store.
func (s *Server) close() {
	if s.store == nil {
		return
	}
	s.etcd.Close()
	s.store.Stop()
}

// Objects reads everything that is stored, as it is at one moment.
func (s *Server) Objects(ctx context.Context) iter.Seq2[store.Object, error] {
	return store.Dump(ctx, s.etcd)
}

// Stop ends the API, then the store, and waits for both.
func (s *Server) Stop() error {
	s.stop.Do(s.cancel)
	return s.Wait()
}

// Wait blocks until API and store have ended, and returns why if it was not asked for.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// shutdownTimeout bounds how long the API waits for requests when it stops.
const shutdownTimeout = 3 * time.Second
