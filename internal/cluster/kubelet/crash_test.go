//go:build linux

package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// life is what a pod goes through from its creation to its end, on a bench that may be reborn at any moment.
type life struct {
	name string
	pod  func() *v1.Pod
	live func(b *bench)
	// started are the containers that were started, in that order: a death of ours starts none twice.
	started []string
}

func lives() []life {
	return []life{{
		name: "a deleted pod with all kinds of containers",
		pod: func() *v1.Pod {
			pod := specified("i s* | a b", v1.RestartPolicyAlways)
			hooks := &v1.Lifecycle{
				PostStart: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"greet"}}},
				PreStop:   &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"leave"}}},
			}
			pod.Spec.Containers[0].Lifecycle = hooks
			return pod
		},
		live: func(b *bench) {
			b.exits("i", 0)
			b.within(time.Minute, "running", b.running)
			b.delete(5)
			b.within(2*time.Minute, "gone", b.gone)
		},
		started: []string{"i", "s", "a", "b"},
	}, {
		name: "a pod that restarts and then succeeds",
		pod:  func() *v1.Pod { return specified("a", v1.RestartPolicyOnFailure) },
		live: func(b *bench) {
			b.exits("a", 1)
			b.within(time.Minute, "restarted", b.restartedTo(1))
			b.exits("a", 0)
			b.within(time.Minute, "succeeded", func() bool { return b.pod().Status.Phase == v1.PodSucceeded })
			b.delete(5)
			b.within(2*time.Minute, "gone", b.gone)
		},
		started: []string{"a", "a"},
	}, {
		name: "a pod that waits for its image",
		pod: func() *v1.Pod {
			pod := specified("a", v1.RestartPolicyNever)
			pod.Spec.Containers[0].Image = "later"
			return pod
		},
		live: func(b *bench) {
			b.within(time.Minute, "in back-off", func() bool { return b.images.Pulls() > 1 })
			b.images.Publish("later:latest")
			b.within(10*time.Minute, "running", b.running)
			b.exits("a", 3)
			b.within(time.Minute, "failed", func() bool { return b.pod().Status.Phase == v1.PodFailed })
			b.delete(0)
			b.within(2*time.Minute, "gone", b.gone)
		},
		started: []string{"a"},
	}}
}

// TestADeathAtAnyMomentChangesNothing kills the kubelet before and after each call to the runtime and to the API, and
// starts another on what it finds.
func TestADeathAtAnyMomentChangesNothing(t *testing.T) {
	for _, l := range lives() {
		t.Run(l.name, func(t *testing.T) {
			boundaries := 0
			synctest.Test(t, func(t *testing.T) { boundaries = l.run(t, 0) })
			if boundaries < 20 {
				t.Fatalf("only %d boundaries", boundaries)
			}
			step := 1
			if testing.Short() {
				step = 7
			}
			for at := 1; at <= boundaries; at += step {
				t.Run(fmt.Sprint("boundary ", at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { l.run(t, at) })
				})
			}
		})
	}
}

// run lives a life with a death at a boundary, and returns how many boundaries there were.
func (l life) run(t *testing.T, death int) int {
	pod := l.pod()
	links := false
	pod.Spec.EnableServiceLinks, pod.Spec.NodeName, pod.Spec.DNSPolicy = &links, "node1", v1.DNSDefault
	b := newBench(t, pod, 1)
	b.client.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		switch a.GetVerb() {
		case "patch", "delete": // what the kubelet does to a pod
			err := b.runtime.Boundary()
			return err != nil, nil, err
		}
		return false, nil, nil
	})
	died := make(chan struct{})
	b.died = died
	b.runtime.CrashAt(death, func() { close(died) })
	b.start()
	defer func() { b.stop() }()
	l.live(b)
	b.sync() // the object is gone
	b.within(time.Minute, "cleared away", func() bool { return b.runtime.Empty() && b.empty() })
	if got := b.runtime.Started(); !slices.Equal(got, l.started) {
		t.Errorf("started %q, want %q", got, l.started)
	}
	return b.runtime.Boundaries()
}

// exits ends a container once it runs.
func (b *bench) exits(name string, code int32) {
	b.t.Helper()
	b.within(time.Minute, name+" running", func() bool { return b.runtime.Runs(name) })
	b.runtime.Exit(name, code)
}

// empty reports whether the node's disk holds nothing of the pod.
func (b *bench) empty() bool {
	files, _ := filepath.Glob(filepath.Join(b.k.cfg.StateDir, "pods", "*"))
	logs, _ := os.ReadDir(b.k.cfg.PodLogsDir)
	return len(files)+len(logs) == 0
}
