package statuswriter

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"minato/internal/model"
	"minato/internal/source"
)

func TestWhatIsWrongWithACorefileIsToldOnItsConfigMap(t *testing.T) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "coredns"}}
	b, recorder := source.NewBuilder(), record.NewFakeRecorder(10)
	w := DNSConfigWriter{
		Client: fake.NewClientset(object), Source: b, Log: slog.New(slog.DiscardHandler), Recorder: recorder, Retry: time.Millisecond,
		Check: func(c *model.DNSConfig) ([]string, error) {
			switch {
			case c == nil:
				return nil, nil
			case c.Corefile == "broken":
				return nil, errors.New("line 1: broken")
			}
			return []string{"line 2: template is not supported"}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	become := func(text string) {
		object.Data = map[string]string{"Corefile": text}
		c, _ := source.DNSConfig(object)
		b.Update(func(b *source.Batch) {
			b.ReplaceServices(nil)
			b.ReplaceSlices(nil)
			b.ReplaceNodes(nil)
			b.ReplaceNamespaces(nil)
			b.ReplaceDNSConfigs([]*source.DNSConfigMap{c})
		})
	}
	want := func(text string) {
		t.Helper()
		select {
		case got := <-recorder.Events:
			if !strings.Contains(got, text) {
				t.Errorf("Event %q, want one with %q", got, text)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no Event with %q came", text)
		}
	}
	become("broken")
	want("Warning InvalidCorefile line 1: broken. What was in force before it stays")
	become("other")
	want("Warning NotSupported line 2: template is not supported")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
