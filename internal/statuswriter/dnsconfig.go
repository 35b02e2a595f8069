package statuswriter

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"minato/internal/model"
	"minato/internal/source"
)

// DNSConfigWriter tells by Events on ConfigMap kube-system/coredns what of it is not in force. One process of the
// cluster runs one.
type DNSConfigWriter struct {
	Client   kubernetes.Interface
	Source   Source
	Log      *slog.Logger
	Check    func(*model.DNSConfig) (warnings []string, err error)
	Recorder record.EventRecorder // nil: Events go to Client
	Retry    time.Duration        // 0: 1 s
}

// Run tells until ctx ends, and then returns nil.
func (w *DNSConfigWriter) Run(ctx context.Context) error {
	defer startRecorder(ctx, w.Client, &w.Recorder)()
	if w.Retry == 0 {
		w.Retry = time.Second
	}
	changed, cancel := w.Source.Subscribe()
	defer cancel()
	var told *model.DNSConfig
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again.C:
		}
		now := w.Source.Current().DNS
		if now == told {
			continue
		}
		if err := w.tell(ctx, now); err != nil {
			w.Log.Warn("an Event about ConfigMap kube-system/coredns was not sent", "error", err)
			again.Reset(w.Retry)
			continue
		}
		told = now
	}
}

func (w *DNSConfigWriter) tell(ctx context.Context, c *model.DNSConfig) error {
	warnings, problem := w.Check(c)
	if len(warnings) == 0 && problem == nil {
		return nil
	}
	m, err := w.Client.CoreV1().ConfigMaps(source.DNSConfigNamespace).Get(ctx, source.DNSConfigName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	if problem != nil {
		w.Recorder.Eventf(m, corev1.EventTypeWarning, "InvalidCorefile", "%v. What was in force before it stays", problem)
	}
	for _, text := range warnings {
		w.Recorder.Event(m, corev1.EventTypeWarning, "NotSupported", text)
	}
	return nil
}
