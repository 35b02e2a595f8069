//go:build linux

package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	internalapi "k8s.io/cri-api/pkg/apis"
	criclient "k8s.io/cri-client/pkg"
	"k8s.io/kubernetes/pkg/kubelet/network/dns"
	utilexec "k8s.io/utils/exec"

	"minato/internal/cluster/kubelet/cgroup"
	"minato/internal/cluster/kubelet/probe"
	"minato/internal/cluster/kubelet/server"
	"minato/internal/cluster/kubelet/volumes"
	"minato/internal/netns"
)

// Port is where every kubelet serves.
const Port = 10250

// Config is what a node's kubelet is made from. All fields without "optional" are needed.
type Config struct {
	NodeName  string
	Addresses []netip.Addr // of the node, the primary first; at most one of each family
	Netns     netns.NS     // the node's; the zero value is a node that is the host
	// Listen, optional, opens the port at address, in Netns.
	Listen   func(ctx context.Context, address string) (net.Listener, error)
	PodCIDRs []string // optional: of the Node object, if the API has none for it
	Labels   map[string]string

	Client         kubernetes.Interface
	Services       corelisters.ServiceLister // of all namespaces
	ServicesSynced func() bool

	// ConfigMaps and Secrets, optional, tell of changes, so that volumes follow at once. Without them they follow within
	// half a minute.
	ConfigMaps, Secrets cache.SharedIndexInformer

	Runtime internalapi.RuntimeService
	Images  internalapi.ImageManagerService
	// Exits, optional, calls back with the ids of containers that end, and returns when its connection breaks: see
	// containerd.Daemon. Without it ends are noticed within a second.
	Exits func(ctx context.Context, exited func(id string)) error

	// Withdrawn, optional, returns nil when no node sends new connections to a pod that is being deleted, at once
	// for a pod that no Service selects, and an error when ctx ends before.
	Withdrawn func(ctx context.Context, namespace, name string) error
	// Settled, optional, returns when every node's data path has taken up what the API says: after a start of ours it is
	// for a moment what an earlier life left. It is asked once.
	Settled func(ctx context.Context) error

	ClusterDNS     []netip.Addr
	ClusterDomain  string
	HostResolvConf string // optional: /etc/resolv.conf

	Serving  tls.Certificate // for the node's address and name
	ClientCA *x509.CertPool  // of client certificates; those of system:masters may do everything here

	StateDir   string // pods' volumes and files, a folder per pod; the node's alone
	PodLogsDir string // pods' logs; the node's alone
	// ManifestDir holds the files of static pods; it is made. Optional: manifests in StateDir.
	ManifestDir string
	SeccompDir  string // optional: where profiles of type Localhost are; may be all nodes'
	CgroupRoot  string // "/minato-NAME"

	LeaseInterval time.Duration // optional: 3 s; a node counts as stopped after some of them
	Log           *slog.Logger
}

// Kubelet runs the pods of one node.
type Kubelet struct {
	cfg      Config
	capacity v1.ResourceList
	begun    time.Time
	settled  sync.Once

	registered chan struct{}           // closed by the node's own loop
	node       atomic.Pointer[v1.Node] // as it was last written
	leaving    atomic.Bool
	leavingSet chan struct{} // wakes the node's own loop

	recorder record.EventRecorderLogger
	events   record.EventBroadcaster
	dns      *dns.Configurer
	volumes  volumes.Volumes
	tokens   *tokens
	puller   *puller
	restarts *flowcontrol.Backoff
	monitor  *probe.Monitor
	statuses *statusWriter
	watcher  *watcher
	measured *measured
	statics  *statics

	limit     func(cgroup string, l cgroup.Limits) error // cgroup.Set
	limited   func(cgroup string) (cgroup.Limits, error) // cgroup.Get
	used      func(cgroup string) (cgroup.Usage, error)  // cgroup.Meter's
	admission admission
	admitting sync.Mutex

	mu      sync.Mutex
	workers map[types.UID]*worker
	working sync.WaitGroup
}

// New checks the configuration. It makes no connection.
func New(cfg Config) (*Kubelet, error) {
	if cfg.NodeName == "" || len(cfg.Addresses) == 0 || cfg.Client == nil || cfg.Runtime == nil || cfg.Images == nil {
		return nil, errors.New("kubelet: name, address, API client and runtime are needed")
	}
	if cfg.Listen == nil {
		cfg.Listen = func(ctx context.Context, address string) (net.Listener, error) {
			return cfg.Netns.Listen(ctx, "tcp", address)
		}
	}
	if cfg.LeaseInterval == 0 {
		cfg.LeaseInterval = 3 * time.Second
	}
	if cfg.ManifestDir == "" {
		cfg.ManifestDir = filepath.Join(cfg.StateDir, "manifests")
	}
	if cfg.HostResolvConf == "" {
		cfg.HostResolvConf = "/etc/resolv.conf"
	}
	cfg.Log = cfg.Log.With("node", cfg.NodeName)
	capacity, err := machineCapacity()
	if err != nil {
		return nil, fmt.Errorf("kubelet: capacity of the machine: %w", err)
	}
	meter, err := cgroup.NewMeter()
	if err != nil {
		cfg.Log.Warn("nobody can say what pods use (kubectl top)", "err", err)
	}
	admission, err := newAdmission(context.Background())
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	k := &Kubelet{
		cfg: cfg, capacity: capacity, begun: time.Now(), admission: admission, limit: cgroup.Set, limited: cgroup.Get, used: meter.Read,
		registered: make(chan struct{}), leavingSet: make(chan struct{}, 1), workers: make(map[types.UID]*worker),
		puller: newPuller(), restarts: flowcontrol.NewBackOff(backOffBase, backOffLimit),
		statuses: newStatusWriter(cfg.Client, cfg.Log), tokens: newTokens(cfg.Client), watcher: newWatcher(),
		measured: newMeasured(meter), statics: newStatics(),
	}
	k.volumes = volumes.Volumes{Dir: podsDir(cfg.StateDir), Token: k.tokens.get, Memory: *capacity.Memory()}
	k.monitor = &probe.Monitor{
		Prober:  probe.Prober{Dial: cfg.Netns.DialContext, Exec: k.exec},
		Changed: func(pod *v1.Pod) { k.poke(pod.UID) },
		Event:   func(c probe.Container, kind, reason, message string) { k.event(c.Pod, c.Spec, kind, reason, message) },
	}
	return k, nil
}

// Registered is closed when the Node object first says what this run of the kubelet has found. Until then it says what
// an earlier run did.
func (k *Kubelet) Registered() <-chan struct{} { return k.registered }

// SetLeaving says that the node is being stopped, or no longer: it and its pods are then not ready, so that nobody is
// sent there, although they run on. It returns at once; the API says so a moment later.
func (k *Kubelet) SetLeaving(leaving bool) {
	k.leaving.Store(leaving)
	select {
	case k.leavingSet <- struct{}{}:
	default:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		w.poke()
	}
}

// Run registers the node and runs its pods until ctx ends. It then waits for what is under way and leaves the
// containers running. Pods that run already are adopted. An outage of the API or the runtime is waited for; only a
// port that cannot be opened is an error.
func (k *Kubelet) Run(ctx context.Context) error {
	address := net.JoinHostPort(k.cfg.Addresses[0].String(), strconv.Itoa(Port))
	listener, err := k.cfg.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("kubelet of %s: %w", k.cfg.NodeName, err)
	}
	k.startEvents(ctx)
	defer k.events.Shutdown()
	var parts sync.WaitGroup
	parts.Go(func() { k.serve(ctx, listener) })
	parts.Go(func() { k.statuses.run(ctx) })
	parts.Go(func() { k.watchRuntime(ctx) })
	if k.cfg.Exits != nil {
		parts.Go(func() { k.followExits(ctx) })
	}
	parts.Go(func() { k.rotateLogs(ctx) })
	parts.Go(func() { k.watchStorage(ctx) })
	parts.Go(func() { k.watchUsage(ctx) })
	parts.Go(func() { k.runNode(ctx) })
	parts.Go(func() { k.watchPods(ctx) })
	parts.Go(func() { k.watchStatic(ctx) })
	parts.Go(func() {
		if err := k.followObjects(ctx); err != nil {
			k.cfg.Log.Error("volumes change late", "err", err)
		}
	})
	parts.Wait()
	k.working.Wait()
	k.monitor.Stop()
	return nil
}

// Remove removes the StateDir of a kubelet that does not run and whose containers do not run: it unmounts the pods'
// volumes, which a plain removal cannot.
func Remove(stateDir string) error {
	v := volumes.Volumes{Dir: podsDir(stateDir)}
	pods, err := os.ReadDir(v.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, pod := range pods {
		if err := v.Remove(types.UID(pod.Name())); err != nil {
			return fmt.Errorf("removing the volumes of pod %s: %w", pod.Name(), err)
		}
	}
	return os.RemoveAll(stateDir)
}

func podsDir(stateDir string) string { return filepath.Join(stateDir, "pods") }

// startEvents makes what needs the recorder, which needs ctx.
func (k *Kubelet) startEvents(ctx context.Context) {
	k.events = record.NewBroadcaster(record.WithContext(ctx))
	k.events.StartRecordingToSink(eventSink(k.cfg.Client))
	k.recorder = k.events.NewRecorder(scheme, v1.EventSource{Component: "kubelet", Host: k.cfg.NodeName})
	var nodeIPs, clusterDNS []net.IP
	for _, a := range k.cfg.Addresses {
		nodeIPs = append(nodeIPs, a.AsSlice())
	}
	for _, a := range k.cfg.ClusterDNS {
		clusterDNS = append(clusterDNS, a.AsSlice())
	}
	k.dns = dns.NewConfigurer(k.recorder, k.nodeRef(), nodeIPs, clusterDNS, k.cfg.ClusterDomain, k.cfg.HostResolvConf)
}

// serve answers the API's requests for logs, exec, attach and port-forward.
func (k *Kubelet) serve(ctx context.Context, listener net.Listener) {
	s := server.Server{Pods: k, Runtime: k.cfg.Runtime, LogDir: k.cfg.PodLogsDir, Log: k.cfg.Log}
	err := s.Serve(ctx, listener, k.cfg.Serving, k.cfg.ClientCA)
	if err != nil {
		k.cfg.Log.Error("kubelet server", "err", err)
	}
}

// poke wakes a pod's worker.
func (k *Kubelet) poke(uid types.UID) {
	k.mu.Lock()
	w := k.workers[uid]
	k.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

// exec runs a command in a container and waits for it.
func (k *Kubelet) exec(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, code int, err error) {
	stdout, stderr, err := k.cfg.Runtime.ExecSync(ctx, id, command, timeout)
	output = append(stdout, stderr...)
	var exit utilexec.CodeExitError
	switch {
	case errors.As(err, &exit):
		return output, exit.Code, nil
	case errors.Is(err, criclient.ErrCommandTimedOut):
		return output, 0, fmt.Errorf("%w: %w", probe.ErrCommandTimedOut, err)
	}
	return output, 0, err
}

// services are those whose variables a namespace's pods see.
func (k *Kubelet) services(namespace string) ([]*v1.Service, error) {
	list, err := k.cfg.Services.Services(namespace).List(labels.Everything())
	if err != nil || namespace == v1.NamespaceDefault {
		return list, err
	}
	if kubernetes, err := k.cfg.Services.Services(v1.NamespaceDefault).Get("kubernetes"); err == nil {
		list = append(list, kubernetes)
	}
	return list, nil
}

// configMap and secret read the API each time: what a new container gets must be the newest.
func (k *Kubelet) configMap(ctx context.Context) func(namespace, name string) (*v1.ConfigMap, error) {
	return func(namespace, name string) (*v1.ConfigMap, error) {
		return k.cfg.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	}
}

func (k *Kubelet) secret(ctx context.Context) func(namespace, name string) (*v1.Secret, error) {
	return func(namespace, name string) (*v1.Secret, error) {
		return k.cfg.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	}
}
