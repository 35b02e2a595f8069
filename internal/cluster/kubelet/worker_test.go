//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/pkg/kubelet/network/dns"

	"minato/internal/cluster/kubelet/cgroup"
	"minato/internal/cluster/kubelet/fakecri"
)

// bench is one node with a pod, on a fake runtime and a fake API, in a bubble of fake time.
type bench struct {
	t       *testing.T
	cfg     Config
	resolv  string
	id      identity
	k       *Kubelet
	ctx     context.Context // of the kubelet that runs
	runtime *fakecri.Runtime
	images  *fakecri.Images
	client  *fake.Clientset
	events  *told
	limits  []cgroup.Limits // that the pod's cgroup was given
	cgroups sync.Map        // of pods, by path: what the kernel would say
	stop    func()
	died    chan struct{} // closed when the kubelet is to die; nil for never
}

// told is a recorder that keeps what it is told.
type told struct {
	record.EventRecorderLogger
	mu    sync.Mutex
	texts []string
}

func newBench(t *testing.T, pod *v1.Pod, seed uint64) *bench {
	t.Helper()
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, resolv: resolv, id: identify(pod), runtime: fakecri.New(seed), images: fakecri.NewImages("image:latest"), client: fake.NewClientset(pod, roomyNode()), events: &told{EventRecorderLogger: &record.FakeRecorder{}}}
	b.cfg = Config{
		NodeName: "node1", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.11")}, Client: b.client,
		Services: corelisters.NewServiceLister(cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})), ServicesSynced: func() bool { return true },
		Runtime: b.runtime, Images: b.images, ClusterDomain: "cluster.local",
		StateDir: filepath.Join(dir, "state"), PodLogsDir: filepath.Join(dir, "logs"), CgroupRoot: "/minato-workertest", Log: slog.New(slog.DiscardHandler),
	}
	b.build()
	return b
}

// build makes a kubelet that knows nothing.
func (b *bench) build() {
	b.t.Helper()
	k, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	k.recorder = b.events
	k.limit = func(path string, l cgroup.Limits) error {
		b.limits = append(b.limits, l)
		b.cgroups.Store(path, l)
		return nil
	}
	k.limited = func(path string) (cgroup.Limits, error) {
		if l, ok := b.cgroups.Load(path); ok {
			return l.(cgroup.Limits), nil
		}
		return cgroup.Limits{}, fs.ErrNotExist
	}
	k.dns = dns.NewConfigurer(b.events, k.nodeRef(), nil, nil, "cluster.local", b.resolv)
	b.k = k
}

// roomyNode has room for every pod.
func roomyNode() *v1.Node {
	room := v1.ResourceList{v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourcePods: resource.MustParse("110")}
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Status: v1.NodeStatus{Allocatable: room, Capacity: room}}
}

func (e *told) Event(_ runtime.Object, _, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.texts = append(e.texts, reason+": "+message)
}

func (e *told) count(text string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.texts {
		if strings.HasPrefix(t, text) {
			n++
		}
	}
	return n
}

// start runs what a pod needs of the kubelet: its worker, the status writer, and a look at the runtime each second.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	k := b.k
	var parts sync.WaitGroup
	parts.Go(func() { k.statuses.run(ctx) })
	parts.Go(func() { k.watchRuntime(ctx) })
	b.ctx = ctx
	b.stop = sync.OnceFunc(func() {
		cancel()
		parts.Wait()
		k.working.Wait()
		k.monitor.Stop()
	})
	b.sync()
}

// sync hands the API's pod to the kubelet, as the watch does.
func (b *bench) sync() {
	b.t.Helper()
	pod, err := b.client.CoreV1().Pods(b.id.namespace).Get(context.Background(), b.id.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		b.k.gone(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: b.id.uid}})
		return
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.k.update(b.ctx, pod)
}

// rebirth ends the kubelet, as far as its goroutines have not noticed that they are dead, and starts another on what it
// has left.
func (b *bench) rebirth() {
	b.stop()
	b.runtime.Revive()
	b.build()
	b.start()
	b.k.adoptOrphans(b.ctx)
}

func (b *bench) pod() *v1.Pod {
	b.t.Helper()
	pod, err := b.client.CoreV1().Pods(b.id.namespace).Get(context.Background(), b.id.name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return pod
}

func (b *bench) gone() bool {
	_, err := b.client.CoreV1().Pods(b.id.namespace).Get(context.Background(), b.id.name, metav1.GetOptions{})
	return apierrors.IsNotFound(err)
}

func (b *bench) delete(grace int64) {
	b.t.Helper()
	pod := b.pod()
	end := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second)) // as the API does
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &end, &grace
	if _, err := b.client.CoreV1().Pods(pod.Namespace).Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.sync()
}

// within waits, in fake time, until something is so.
func (b *bench) within(d time.Duration, what string, is func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(d); !is(); time.Sleep(50 * time.Millisecond) {
		select {
		case <-b.died:
			b.died = nil
			b.rebirth()
		default:
		}
		if time.Now().After(deadline) {
			pod, err := b.client.CoreV1().Pods(b.id.namespace).Get(context.Background(), b.id.name, metav1.GetOptions{})
			b.t.Fatalf("not %s within %v: %+v %v, events %q", what, d, pod, err, b.events.texts)
		}
	}
}

func (b *bench) running() bool { return b.pod().Status.Phase == v1.PodRunning }

func simple(policy v1.RestartPolicy) *v1.Pod {
	links := false
	pod := specified("a", policy)
	pod.Spec.EnableServiceLinks = &links
	pod.Spec.NodeName, pod.Spec.DNSPolicy = "node1", v1.DNSDefault
	return pod
}

func TestBackOffOfRestartsDoublesFrom10To300Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, simple(v1.RestartPolicyAlways), 1)
		b.start()
		defer b.stop()
		want := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
		for i, seconds := range want {
			b.within(time.Second, "running", b.restartedTo(int32(i)))
			ended := time.Now()
			b.runtime.Exit("a", 1)
			b.within(400*time.Second, "restarted", b.restartedTo(int32(i)+1))
			if took := time.Since(ended); took < seconds*time.Second || took > seconds*time.Second+2*time.Second {
				t.Errorf("restart %d took %v, want %ds", i+1, took, seconds)
			}
		}
		time.Sleep(11 * time.Minute) // quiet
		ended := time.Now()
		b.runtime.Exit("a", 1)
		b.within(5*time.Second, "restarted at once after a quiet time", b.restartedTo(int32(len(want))+1))
		t.Logf("after a quiet time it took %v", time.Since(ended))
	})
}

func (b *bench) restartedTo(count int32) func() bool {
	return func() bool {
		s := b.pod().Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount == count && s[0].State.Running != nil
	}
}

func TestBackOffOfPullsDoublesFrom10To300Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].Image = "later"
		b := newBench(t, pod, 1)
		start := time.Now()
		b.start()
		defer b.stop()
		var at []int
		for len(at) < 8 {
			n := b.images.Pulls()
			if n > len(at) {
				at = append(at, int(time.Since(start).Seconds()))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if want := "[0 10 30 70 150 310 610 910]"; fmt.Sprint(at) != want {
			t.Errorf("pulled after %v seconds, want %s", at, want)
		}
		b.images.Publish("later:latest")
		b.within(301*time.Second, "running", b.running)
	})
}

func TestAPodComesUpAndGoesAwayInSpiteOfFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := simple(v1.RestartPolicyAlways)
				pod.Spec.InitContainers = []v1.Container{{Name: "i", Image: "image"}}
				b := newBench(t, pod, seed)
				b.runtime.Faults = 0.2
				b.start()
				defer b.stop()
				b.within(10*time.Minute, "in its init container", func() bool {
					s := b.pod().Status.InitContainerStatuses
					return len(s) == 1 && s[0].State.Running != nil
				})
				b.runtime.Exit("i", 0)
				b.within(10*time.Minute, "running", b.running)
				b.delete(5)
				b.within(30*time.Minute, "gone", b.gone)
				b.sync()
				for deadline := time.Now().Add(30 * time.Minute); !b.runtime.Empty(); time.Sleep(time.Second) {
					if time.Now().After(deadline) {
						t.Fatal("the runtime still has something")
					}
				}
			})
		})
	}
}

func TestAContainerThatStopsInTimeIsNotKilled(t *testing.T) {
	for stops, want := range map[time.Duration]int32{3 * time.Second: 0, 8 * time.Second: 137} {
		t.Run(fmt.Sprint("stops after ", stops), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, simple(v1.RestartPolicyAlways), 1)
				b.runtime.Stops = stops
				b.start()
				defer b.stop()
				b.within(time.Second, "running", b.running)
				start := time.Now()
				b.delete(5)
				b.within(time.Minute, "gone", b.gone)
				if took := time.Since(start); took < min(stops, 5*time.Second) || took > min(stops, 5*time.Second)+time.Second {
					t.Errorf("it took %v", took)
				}
				if codes := b.runtime.Codes(); !slices.Equal(codes, []int32{want}) {
					t.Errorf("exit codes %v, want %d", codes, want)
				}
			})
		})
	}
}

func TestAHookThatHangsEndsWithItsPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 3600}}}
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		b.within(time.Second, "started", func() bool { return b.runtime.Runs("a") })
		b.delete(5)
		b.within(10*time.Second, "gone", b.gone)
	})
}

func TestAGraceThatBeganInAnEarlierLifeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, simple(v1.RestartPolicyAlways), 1)
		b.runtime.Stops = time.Hour
		b.start()
		defer func() { b.stop() }()
		b.within(time.Second, "running", b.running)
		start := time.Now()
		b.delete(30)
		time.Sleep(20 * time.Second)
		b.rebirth()
		b.within(time.Minute, "gone", b.gone)
		if took := time.Since(start); took < 29*time.Second || took > 33*time.Second {
			t.Errorf("with a grace of 30 s it took %v", took)
		}
	})
}

func TestAPodThatOutlivesItsDeadlineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		deadline := int64(30)
		pod.Spec.ActiveDeadlineSeconds = &deadline
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		b.within(time.Second, "running", b.running)
		b.within(40*time.Second, "failed", func() bool { return b.pod().Status.Phase == v1.PodFailed })
		if s := b.pod().Status; s.Reason != "DeadlineExceeded" || s.ContainerStatuses[0].State.Terminated == nil {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAPodDeletedBeforeItBeganFailsAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].Image = "nowhere"
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		b.within(5*time.Second, "in back-off", func() bool {
			s := b.pod().Status.ContainerStatuses
			return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == reasonImagePullBackOff
		})
		b.delete(30)
		b.within(5*time.Second, "gone", b.gone)
		if b.events.count("BackOff: Back-off pulling image") == 0 {
			t.Errorf("events %q", b.events.texts)
		}
	})
}

func TestAPodWhoseImageIsLoadedStartsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Containers[0].Image = "late"
		b := newBench(t, pod, 1)
		b.start()
		defer b.stop()
		time.Sleep(5 * time.Minute)
		pulls := b.images.Pulls()
		b.images.Publish("late:latest")
		b.k.ImagesLoaded([]string{"docker.io/library/other:latest"})
		time.Sleep(time.Second)
		if n := b.images.Pulls(); n != pulls || b.running() {
			t.Errorf("another image was loaded, and it was pulled %d times more", n-pulls)
		}
		b.k.ImagesLoaded([]string{"docker.io/library/late:latest"})
		b.within(time.Second, "running", b.running)
	})
}
