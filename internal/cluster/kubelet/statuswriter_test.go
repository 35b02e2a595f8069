//go:build linux

package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// writing runs a statusWriter on a fake API whose patches answer by patch, nil for as usual.
func writing(t *testing.T, pod *v1.Pod, patch func(n int) error, test func(w *statusWriter, client *fake.Clientset, patches func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(pod)
		var mu sync.Mutex
		n := 0
		client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			n++
			err := patch(n)
			return err != nil, nil, err
		})
		w := newStatusWriter(client, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { w.run(ctx) })
		test(w, client, func() int { mu.Lock(); defer mu.Unlock(); return n })
		cancel()
		running.Wait()
	})
}

func always(err error) func(int) error { return func(int) error { return err } }

func phaseOf(t *testing.T, client *fake.Clientset) v1.PodPhase {
	t.Helper()
	pod, err := client.CoreV1().Pods("ns").Get(context.Background(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.Phase
}

func TestOnlyTheNewestStatusIsWrittenAndAnEqualOneIsNot(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	writing(t, pod, always(nil), func(w *statusWriter, client *fake.Clientset, patches func() int) {
		for _, phase := range []v1.PodPhase{v1.PodPending, v1.PodRunning, v1.PodSucceeded} {
			w.set(pod, pod.UID, v1.PodStatus{Phase: phase})
		}
		synctest.Wait()
		if got := phaseOf(t, client); got != v1.PodSucceeded {
			t.Errorf("phase %s", got)
		}
		before := patches()
		w.set(pod, pod.UID, v1.PodStatus{Phase: v1.PodSucceeded})
		synctest.Wait()
		if before > 2 || patches() != before {
			t.Errorf("%d patches, then %d", before, patches())
		}
	})
}

func TestAnOutageOfTheAPIIsWaitedFor(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	outage := func(n int) error {
		if n <= 5 {
			return errors.New("connection refused")
		}
		return nil
	}
	writing(t, pod, outage, func(w *statusWriter, client *fake.Clientset, _ func() int) {
		w.set(pod, pod.UID, v1.PodStatus{Phase: v1.PodRunning})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.flush(ctx, pod.UID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("flush in an outage: %v", err)
		}
		if err := w.flush(context.Background(), pod.UID); err != nil {
			t.Error(err)
		}
		if got := phaseOf(t, client); got != v1.PodRunning {
			t.Errorf("phase %s", got)
		}
	})
}

func TestTheStatusOfAPodThatIsGoneIsDropped(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for name, err := range map[string]error{
		"deleted": apierrors.NewNotFound(pods, "p"), "another of the name": apierrors.NewConflict(pods, "p", errors.New("UID")),
	} {
		t.Run(name, func(t *testing.T) {
			pod := specified("a", v1.RestartPolicyAlways)
			writing(t, pod, always(err), func(w *statusWriter, _ *fake.Clientset, patches func() int) {
				w.set(pod, pod.UID, v1.PodStatus{Phase: v1.PodRunning})
				if err := w.flush(context.Background(), pod.UID); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if patches() != 1 {
					t.Errorf("%d tries", patches())
				}
			})
		})
	}
}

func TestConditionsOfOthersStay(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	pod.Status.Conditions = []v1.PodCondition{{Type: "gate", Status: v1.ConditionTrue}}
	writing(t, pod, always(nil), func(w *statusWriter, client *fake.Clientset, _ func() int) {
		s := v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: "gate", Status: v1.ConditionTrue}, {Type: v1.PodReady, Status: v1.ConditionTrue}}}
		w.set(pod, pod.UID, s)
		synctest.Wait()
		got, err := client.CoreV1().Pods("ns").Get(context.Background(), "p", metav1.GetOptions{})
		if err != nil || len(got.Status.Conditions) != 2 {
			t.Errorf("conditions %+v, %v", got.Status.Conditions, err)
		}
	})
}

func TestWhatOthersSetOfOursIsSetBack(t *testing.T) {
	pod := specified("a", v1.RestartPolicyAlways)
	pod.ResourceVersion = "7"
	writing(t, pod, always(nil), func(w *statusWriter, client *fake.Clientset, _ func() int) {
		ready := v1.PodStatus{Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}}
		w.set(pod, pod.UID, ready)
		synctest.Wait()
		marked, err := client.CoreV1().Pods("ns").Get(context.Background(), "p", metav1.GetOptions{})
		if err != nil || len(marked.Status.Conditions) != 1 {
			t.Fatal(marked.Status, err)
		}
		marked.ResourceVersion, marked.Status.Conditions[0].Status = "8", v1.ConditionFalse // as of a node that was not heard of
		if _, err := client.CoreV1().Pods("ns").UpdateStatus(context.Background(), marked, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.set(marked, marked.UID, ready)
		synctest.Wait()
		if got, err := client.CoreV1().Pods("ns").Get(context.Background(), "p", metav1.GetOptions{}); err != nil || got.Status.Conditions[0].Status != v1.ConditionTrue {
			t.Errorf("conditions %+v, %v", got.Status.Conditions, err)
		}
	})
}
