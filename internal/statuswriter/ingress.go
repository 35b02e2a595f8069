package statuswriter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	routes "minato/internal/ingress"
	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/status"
)

// IngressComponent is the name under which an IngressWriter reports; it belongs to no node.
const IngressComponent = "ingress status"

// IngressConfig is what an IngressWriter works with. All but the times and Recorder must be set.
type IngressConfig struct {
	// Client may write Ingresses' status and Events, and create IngressClasses, Services and EndpointSlices.
	Client    kubernetes.Interface
	Source    Source
	Listening func(node string) bool // whether the proxy of a node takes requests
	Board     *status.Board
	Log       *slog.Logger
	Recorder  record.EventRecorder // nil: Events go to Client

	Settle time.Duration // how long a problem, or a missing address, must last before anybody is told: 2 s
	Retry  time.Duration // how soon an error is tried again: 1 s
}

// IngressWriter writes into the status of every Ingress of minato where it is reachable, tells by Events what is
// wrong with it, and keeps the Service that gives the proxies an address of their own. One process of the cluster
// runs one. NewIngressWriter makes it; Run runs it.
type IngressWriter struct {
	cfg      IngressConfig
	wake     chan struct{}
	plan     *routes.Plan
	problems map[routes.Problem]*reported
	wanted   time.Time                          // since when there is an Ingress to serve; zero: there is none
	classed  bool                               // the IngressClass was seen to
	given    map[model.IngressName][]netip.Addr // what stands in the status of Ingresses that are or were served here
}

type reported struct {
	since time.Time
	told  bool
	seen  bool // in this round
}

// NewIngressWriter makes an IngressWriter. It does nothing before Run.
func NewIngressWriter(cfg IngressConfig) *IngressWriter {
	if cfg.Settle == 0 {
		cfg.Settle = 2 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	return &IngressWriter{
		cfg: cfg, wake: make(chan struct{}, 1), plan: routes.New(model.Empty()), problems: map[routes.Problem]*reported{},
		given: map[model.IngressName][]netip.Addr{},
	}
}

// Wake says that what Listening tells has changed. It does not block.
func (w *IngressWriter) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then returns nil.
func (w *IngressWriter) Run(ctx context.Context) error {
	defer startRecorder(ctx, w.cfg.Client, &w.cfg.Recorder)()
	changed, cancel := w.cfg.Source.Subscribe()
	defer cancel()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-w.wake:
		case <-again.C:
		}
		s := w.cfg.Source.Current()
		if !s.Complete || !s.IngressesKnown {
			continue
		}
		after, err := w.round(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		w.cfg.Board.Report("", IngressComponent, s.Revision, err)
		if err != nil {
			w.cfg.Log.Warn("ingress: writing to the API failed, and is tried again", "error", err)
			after = w.cfg.Retry
		}
		if after > 0 {
			again.Reset(after)
		}
	}
}

// round writes what differs, and returns after which time to look again; 0 means when something changes.
func (w *IngressWriter) round(ctx context.Context, s *model.Snapshot) (after time.Duration, err error) {
	w.plan = w.plan.Next(s)
	if err := w.ensureClass(ctx); err != nil {
		return 0, err
	}
	nodes := w.listening(s)
	if err := w.front(ctx, s, nodes); err != nil {
		return 0, err
	}
	addrs, wait := w.addresses(s, nodes)
	var errs []error
	given := map[model.IngressName][]netip.Addr{}
	for i := range s.Ingresses() {
		want := addrs
		switch had, ours := w.given[i.Name]; {
		case !i.Served && !ours:
			continue
		case !i.Served: // its class has changed: what was given is taken back, what others gave is not
			given[i.Name], want = had, nil
			if !slices.Equal(i.Addrs, had) {
				continue
			}
		case wait > 0:
			given[i.Name] = i.Addrs
			continue
		default:
			given[i.Name] = addrs
		}
		if !slices.Equal(i.Addrs, want) {
			errs = append(errs, w.writeStatus(ctx, i, want))
		}
	}
	w.given = given
	return sooner(wait, w.tell(s)), errors.Join(errs...)
}

func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// ensureClass creates the IngressClass, once, where the cluster has none at all: as the default one, so that an
// Ingress without a class is served.
func (w *IngressWriter) ensureClass(ctx context.Context) error {
	if w.classed {
		return nil
	}
	classes := w.cfg.Client.NetworkingV1().IngressClasses()
	all, err := classes.List(ctx, metav1.ListOptions{Limit: 1})
	if err == nil && len(all.Items) == 0 {
		_, err = classes.Create(ctx, &networkingv1.IngressClass{
			ObjectMeta: metav1.ObjectMeta{Name: "minato", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
			Spec:       networkingv1.IngressClassSpec{Controller: source.IngressController},
		}, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the IngressClass: %w", err)
	}
	w.classed = true
	return nil
}

// listening are the nodes whose proxies take requests.
func (w *IngressWriter) listening(s *model.Snapshot) (nodes []*model.Node) {
	for n := range s.Nodes() {
		if len(n.Addrs) > 0 && w.cfg.Listening(n.Name) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// addresses is where Ingresses are reachable: at the load balancer's address, else at the nodes'. A load balancer gets
// a moment to give one, so that the status does not change twice.
func (w *IngressWriter) addresses(s *model.Snapshot, nodes []*model.Node) (addrs []netip.Addr, wait time.Duration) {
	if w.plan.Empty() {
		w.wanted = time.Time{}
		return nil, 0
	}
	if w.wanted.IsZero() {
		w.wanted = time.Now()
	}
	if f := s.Service(Front); f != nil && len(f.LoadBalancerAddrs) > 0 && len(nodes) > 0 {
		return f.LoadBalancerAddrs, 0
	}
	if left := w.cfg.Settle - time.Since(w.wanted); left > 0 {
		return nil, left
	}
	for _, n := range nodes {
		addrs = append(addrs, n.Addrs...)
	}
	return addrs, 0
}

func (w *IngressWriter) writeStatus(ctx context.Context, i *model.Ingress, addrs []netip.Addr) error {
	type address struct {
		IP string `json:"ip"`
	}
	all := []address{}
	for _, a := range addrs {
		all = append(all, address{a.String()})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": all}}})
	if err != nil {
		return fmt.Errorf("encoding a status: %w", err)
	}
	_, err = w.cfg.Client.NetworkingV1().Ingresses(i.Name.Namespace).Patch(ctx, i.Name.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: frontManager}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of Ingress %s: %w", i.Name, err)
	}
	return nil
}

// tell sends an Event for every problem that has lasted a while and was not told of yet. A file that is applied may
// have an Ingress before its Service.
func (w *IngressWriter) tell(s *model.Snapshot) (after time.Duration) {
	now := time.Now()
	for i := range s.Ingresses() {
		for _, text := range w.plan.Problems(i.Name) {
			p := routes.Problem{Ingress: i.Name, Text: text}
			r := w.problems[p]
			if r == nil {
				r = &reported{since: now}
				w.problems[p] = r
			}
			r.seen = true
			if r.told {
				continue
			}
			if left := w.cfg.Settle - now.Sub(r.since); left > 0 {
				after = sooner(after, left)
				continue
			}
			r.told = true
			w.cfg.Recorder.Event(&corev1.ObjectReference{
				APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Namespace: i.Name.Namespace, Name: i.Name.Name, UID: types.UID(i.UID),
			}, corev1.EventTypeWarning, "NotAsWritten", text)
		}
	}
	for p, r := range w.problems {
		if !r.seen {
			delete(w.problems, p)
		}
		r.seen = false
	}
	return after
}
