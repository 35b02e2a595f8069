package statuswriter_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/statuswriter"
)

// noticed is an API in memory, what watches it, and a Notices.
type noticed struct {
	*fake.Clientset
	t       *testing.T
	events  *recorder
	notices *statuswriter.Notices
}

func startNotices(t *testing.T, prepare func(*noticed), objects ...runtime.Object) *noticed {
	t.Helper()
	w := &noticed{Clientset: fake.NewClientset(objects...), t: t, events: new(recorder)}
	prepare(w)
	builder := source.NewBuilder()
	w.notices = statuswriter.NewNotices(statuswriter.NoticesConfig{
		Client: w, Source: builder, Log: slog.New(slog.DiscardHandler), Recorder: w.events, Settle: 50 * time.Millisecond, Retry: 10 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return kube.Run(ctx, w, builder) }, w.notices.Run,
	} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	if err := builder.WaitComplete(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// asIs leaves the API as it is.
func asIs(*noticed) {}

// external is a Service with an external address, made at a second of its own.
func external(name, addr string, second int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.Unix(int64(second), 0)},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0." + name[len(name)-1:], ExternalIPs: []string{addr}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func (w *noticed) put(s *corev1.Service) {
	w.t.Helper()
	if _, err := w.CoreV1().Services("default").Update(w.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// wait waits for n Events, and checks that each begins as it should.
func (w *noticed) wait(want ...string) {
	w.t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); len(got) < len(want); time.Sleep(5 * time.Millisecond) {
		if got = w.events.list(); time.Now().After(deadline) {
			w.t.Fatalf("told %q, want %q", got, want)
		}
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		w.t.Fatalf("told %q, want %q", got, want)
	}
}

func TestTheYoungerOfTwoServicesWithOneAddressIsTold(t *testing.T) {
	w := startNotices(t, asIs, external("web-1", "192.0.2.1", 1), external("web-2", "192.0.2.1", 2))
	loss := "Service/web-2 Warning AddressTaken give this Service or Service default/web-1 another address: 192.0.2.1:80/tcp is the other's, which is older"
	w.wait(loss)
	w.put(external("web-2", "192.0.2.2", 2))
	if _, err := w.CoreV1().Services("default").Create(t.Context(), external("web-3", "192.0.2.2", 3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.wait(loss, "Service/web-3 Warning AddressTaken give this Service or Service default/web-2")
	w.put(external("web-2", "192.0.2.1", 2))
	w.wait(loss, "Service/web-3 Warning AddressTaken", loss)
}

func TestWhatCannotBeUsedOfAServiceIsTold(t *testing.T) {
	w := startNotices(t, asIs, external("web-1", "300.0.0.1", 1))
	w.wait("Service/web-1 Warning NotAsWritten ")
	if got := w.events.list()[0]; !strings.Contains(got, "300.0.0.1") {
		t.Errorf("told %q", got)
	}
}

func TestWhatANodeFindsIsToldOnceEvenAfterAnError(t *testing.T) {
	failures := 2
	w := startNotices(t, func(w *noticed) {
		w.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
			if failures--; failures >= 0 {
				return true, nil, errors.New("not now")
			}
			return false, nil, nil
		})
	}, external("web-1", "192.0.2.1", 1), external("web-2", "192.0.2.2", 2))
	name := model.ServiceName{Namespace: "default", Name: "web-1"}
	for range 3 {
		w.notices.Warn("node1", name, "FailedToStartServiceHealthcheck", "port 30001 is taken")
	}
	first := "Service/web-1 Warning FailedToStartServiceHealthcheck port 30001 is taken"
	w.wait(first)
	w.notices.Warn("node1", name, "FailedToStartServiceHealthcheck", "port 30001 is taken")
	name.Name = "web-2"
	w.notices.Warn("node1", name, "FailedToStartServiceHealthcheck", "port 30002 is taken")
	w.wait(first, "Service/web-2 Warning FailedToStartServiceHealthcheck port 30002 is taken")
}
