package statuswriter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"minato/internal/ipam"
	"minato/internal/model"
	"minato/internal/source"
)

// startRecorder makes the recorder that nobody gave, which sends Events to the API until stop is called.
func startRecorder(ctx context.Context, client kubernetes.Interface, r *record.EventRecorder) (stop func()) {
	if *r != nil {
		return func() {}
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	*r = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "minato"})
	return b.Shutdown
}

// tell warns of a Service's problem once, until it is another one or gone.
func (w *Writer) tell(ctx context.Context, n model.ServiceName, problem, reason, format string, v ...any) error {
	if problem == w.told[n] {
		return nil
	}
	if problem != "" {
		api, err := w.cfg.Client.CoreV1().Services(n.Namespace).Get(ctx, n.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading Service %s: %w", n, err)
		}
		w.cfg.Recorder.Eventf(api, corev1.EventTypeWarning, reason, format, v...)
	}
	w.told[n] = problem
	return nil
}

// standAside tells why nothing is done while another load balancer serves.
func (w *Writer) standAside(ctx context.Context, s *model.Snapshot) {
	l := s.LoadBalancing
	if l == nil {
		return
	}
	for svc := range s.Services() {
		if !ipam.Ours(svc) {
			continue
		}
		err := w.tell(ctx, svc.Name, l.Elsewhere, "StandingAside", "%s serves this Service: minato gives and announces no address while it runs", l.Elsewhere)
		if err != nil {
			w.cfg.Log.Warn("an Event was not sent", "service", svc.Name, "error", err)
		}
	}
	w.cfg.Board.Report("", Component, s.Revision, errors.New("standing aside: "+l.Elsewhere+" serves load balancers"))
}

// tellConfig tells of the configuration on its ConfigMap, once, until there is something else to tell.
func (w *Writer) tellConfig(ctx context.Context, l *model.LoadBalancing, warnings []string) {
	type event struct{ kind, reason, text string }
	var events []event
	for _, text := range warnings {
		events = append(events, event{corev1.EventTypeWarning, "PoolOutsideNetwork", text})
	}
	for _, text := range l.Unused {
		events = append(events, event{corev1.EventTypeWarning, "NotServed", text})
	}
	if l.Problem != "" {
		events = append(events, event{corev1.EventTypeWarning, "InvalidConfig", l.Problem + consequence(l)})
	}
	if len(events) == 0 && w.config != "" {
		events = append(events, event{corev1.EventTypeNormal, "ConfigLoaded", "The configuration is in force"})
	}
	text := fmt.Sprint(events)
	if text == w.config || len(events) == 0 {
		return
	}
	m, err := w.cfg.Client.CoreV1().ConfigMaps(source.PoolConfigNamespace).Get(ctx, source.PoolConfigName, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		w.cfg.Log.Warn("Events of the pools' configuration were not sent", "error", err)
		return // the next round tries again
	}
	for _, e := range events {
		if err == nil {
			w.cfg.Recorder.Event(m, e.kind, e.reason, e.text)
		}
		w.cfg.Log.Info("pools of load balancer addresses", "origin", l.Origin, "reason", e.reason, "text", e.text)
	}
	if w.config = text; events[0].reason == "ConfigLoaded" {
		w.config = ""
	}
}

func consequence(l *model.LoadBalancing) string {
	if len(l.Pools) == 0 {
		return ". No pool is in force: Services keep what they have, and nothing new is given"
	}
	return ". The configuration before it stays in force"
}

// state is what `minato status` shows: nil when every Service has what it asked for.
func (w *Writer) state(s *model.Snapshot, p *ipam.Plan) error {
	var all []string
	if l := s.LoadBalancing; l.Problem != "" {
		all = append(all, fmt.Sprintf("%s: %s%s", strings.TrimSuffix(l.Origin, ", which was never good"), l.Problem, consequence(l)))
	}
	for _, d := range p.Decisions {
		if d.Problem != "" {
			all = append(all, fmt.Sprintf("%s: %s", d.Service, d.Problem))
		} else if b, failed := w.backoff[d.Service]; failed {
			all = append(all, b.err.Error())
		}
	}
	const shown = 3
	if more := len(all) - shown; more > 0 {
		all = append(slices.Clip(all[:shown]), fmt.Sprintf("and %d more", more))
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}
