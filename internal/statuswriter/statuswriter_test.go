package statuswriter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"minato/internal/model"
	"minato/internal/source"
	"minato/internal/source/kube"
	"minato/internal/status"
	"minato/internal/statuswriter"
)

// patience is how long anything may take on a busy machine.
const patience = 20 * time.Second

// recorder keeps Events as "KIND/NAME TYPE REASON TEXT".
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Event(o runtime.Object, kind, reason, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var what string
	switch o := o.(type) {
	case *corev1.Service:
		what = "Service/" + o.Name
	case *corev1.ConfigMap:
		what = "ConfigMap/" + o.Name
	default:
		panic(fmt.Sprintf("Event about a %T", o))
	}
	r.events = append(r.events, strings.Join([]string{what, kind, reason, text}, " "))
}

func (r *recorder) Eventf(o runtime.Object, kind, reason, format string, v ...any) {
	r.Event(o, kind, reason, fmt.Sprintf(format, v...))
}

func (r *recorder) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, v ...any) {
	r.Eventf(o, kind, reason, format, v...)
}

func (r *recorder) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// cluster is an API in memory, what watches it, and the Writer.
type cluster struct {
	*fake.Clientset
	builder *source.Builder
	board   *status.Board
	events  *recorder
	writes  atomic.Int32 // of status, also those that failed
}

// start runs a Writer over an API that holds the objects, with the pool 192.0.2.200-192.0.2.202 as the default.
func start(t *testing.T, prepare func(*cluster), objects ...runtime.Object) *cluster {
	t.Helper()
	c := &cluster{Clientset: fake.NewClientset(objects...), builder: source.NewBuilder(), board: new(status.Board), events: new(recorder)}
	if prepare != nil {
		prepare(c)
	}
	c.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		c.writes.Add(1)
		return false, nil, nil
	})
	c.builder.Update(func(b *source.Batch) {
		b.SetLoadBalancerDefaults(source.LoadBalancerDefaults{
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			Pools: []model.Pool{{Name: "default", AutoAssign: true, Ranges: []model.AddrRange{
				{First: netip.MustParseAddr("192.0.2.200"), Last: netip.MustParseAddr("192.0.2.202")},
			}}},
		})
	})
	w := statuswriter.New(statuswriter.Config{
		Client: c.Clientset, Source: c.builder, Board: c.board, Recorder: c.events, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		RetryMin: time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return kube.Run(ctx, c.Clientset, c.builder) }, w.Run,
	} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return c
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func (c *cluster) service(t *testing.T, name string) *corev1.Service {
	t.Helper()
	s, err := c.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addrs is the EXTERNAL-IP column.
func (c *cluster) addrs(t *testing.T, name string) string {
	t.Helper()
	var all []string
	for _, i := range c.service(t, name).Status.LoadBalancer.Ingress {
		all = append(all, i.IP)
	}
	return strings.Join(all, ",")
}

func (c *cluster) wait(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, name+" has "+want, func() bool { return c.addrs(t, name) == want })
}

func (c *cluster) waitEvent(t *testing.T, want string) {
	t.Helper()
	eventually(t, want, func() bool {
		return slices.ContainsFunc(c.events.list(), func(e string) bool { return strings.HasPrefix(e, want) })
	})
}

func balancer(name string, edits ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.20", ClusterIPs: []string{"10.96.0.20"}, Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

func asks(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = ip }
}

func has(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}} }
}

func config(text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "config"}, Data: map[string]string{"config": text}}
}

const onePool = "address-pools:\n- {name: lan, protocol: layer2, addresses: [192.0.2.100-192.0.2.110]}\n"

func TestAServiceGetsAnAddressAndAnEvent(t *testing.T) {
	c := start(t, nil, balancer("web"))
	c.wait(t, "web", "192.0.2.200")
	c.waitEvent(t, `Service/web Normal IPAllocated Assigned IP ["192.0.2.200"]`)
	in := c.service(t, "web").Status.LoadBalancer.Ingress[0]
	if in.IPMode == nil || *in.IPMode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("mode is %v", in.IPMode)
	}
}

func TestWhatIsRightIsNotWritten(t *testing.T) {
	c := start(t, nil, balancer("web", has("192.0.2.201")), balancer("last"))
	c.wait(t, "last", "192.0.2.200") // names are decided in order, so web was looked at
	if n := c.writes.Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
	if got := c.addrs(t, "web"); got != "192.0.2.201" {
		t.Errorf("web has %s", got)
	}
}

func TestAWriteThatFailsIsTriedAgainAndHoldsUpNobody(t *testing.T) {
	var fail atomic.Int32
	fail.Store(3)
	c := start(t, func(c *cluster) {
		c.PrependReactor("patch", "services", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if a.(clienttesting.PatchAction).GetName() == "a" && fail.Add(-1) >= 0 {
				return true, nil, errors.New("the API is tired")
			}
			return false, nil, nil
		})
	}, balancer("a"), balancer("b"))
	c.wait(t, "b", "192.0.2.201")
	c.wait(t, "a", "192.0.2.200")
}

func TestAConflictIsDecidedAnew(t *testing.T) {
	var once sync.Once
	c := start(t, func(c *cluster) {
		c.PrependReactor("patch", "services", func(a clienttesting.Action) (handled bool, _ runtime.Object, err error) {
			once.Do(func() {
				handled, err = true, apierrors.NewConflict(corev1.Resource("services"), "web", errors.New("changed meanwhile"))
			})
			return handled, nil, err
		})
	}, balancer("web"))
	c.wait(t, "web", "192.0.2.200")
}

func TestWhyThereIsNoAddressIsToldOnceForEachReason(t *testing.T) {
	c := start(t, nil, balancer("web", asks("203.0.113.1")))
	c.waitEvent(t, `Service/web Warning AllocationFailed Failed to allocate IP for "default/web": "203.0.113.1" is not allowed in config`)
	eventually(t, "the reason on the board", func() bool {
		e := c.board.Entries()
		return len(e) == 1 && strings.HasPrefix(e[0].Error, `default/web: "203.0.113.1" is not allowed in config`)
	})
	web := c.service(t, "web")
	web.Labels = map[string]string{"app": "web"}
	web.Spec.Ports[0].Port = 81 // is looked at again, and says the same
	if _, err := c.CoreV1().Services("default").Update(t.Context(), web, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), balancer("z"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "z", "192.0.2.200")
	if n := len(slices.DeleteFunc(c.events.list(), func(e string) bool { return !strings.HasPrefix(e, "Service/web ") })); n != 1 {
		t.Errorf("%d Events: %q", n, c.events.list())
	}
	web = c.service(t, "web")
	web.Spec.LoadBalancerIP = "192.0.2.201"
	if _, err := c.CoreV1().Services("default").Update(t.Context(), web, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "web", "192.0.2.201")
	eventually(t, "no reason on the board", func() bool { return c.board.Entries()[0].Error == "" })
}

func TestAConfigurationTakesTheDefaultsPlaceAndItsErrorsAreTold(t *testing.T) {
	c := start(t, nil, balancer("web"))
	c.wait(t, "web", "192.0.2.200")
	maps := c.CoreV1().ConfigMaps("metallb-system")
	if _, err := maps.Create(t.Context(), config(onePool), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "web", "192.0.2.100")
	c.waitEvent(t, `Service/web Normal ClearAssignment Took ["192.0.2.200"] back: 192.0.2.200 is in no pool any more`)
	for _, step := range []struct{ text, event string }{
		{"adress-pools: []\n", `ConfigMap/config Warning InvalidConfig line 1: unknown key "adress-pools"`},
		{onePool, "ConfigMap/config Normal ConfigLoaded "},
		{onePool + "- {name: out, protocol: layer2, addresses: [203.0.113.0/24]}\n", `ConfigMap/config Warning PoolOutsideNetwork pool "out": 203.0.113.0-203.0.113.255 is not all inside the nodes' network 192.0.2.0/24`},
		{onePool + "peers: [{my-asn: 64500}]\n", "ConfigMap/config Warning NotServed line 3: peers are not served yet"},
	} {
		if _, err := maps.Update(t.Context(), config(step.text), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.waitEvent(t, step.event)
		if got := c.addrs(t, "web"); got != "192.0.2.100" {
			t.Errorf("after %q web has %s", step.text, got)
		}
	}
}

func TestOnlyWhatWasGivenHereIsTakenBack(t *testing.T) {
	c := start(t, nil, config(onePool), balancer("ours"), balancer("theirs", has("198.51.100.1")))
	c.wait(t, "ours", "192.0.2.100")
	c.wait(t, "theirs", "192.0.2.101") // without a class a LoadBalancer is ours, whoever gave it something before
	if _, err := c.CoreV1().Services("default").Create(t.Context(), balancer("cloud", has("198.51.100.2"), func(s *corev1.Service) {
		other := "example.com/cloud"
		s.Spec.LoadBalancerClass = &other
	}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().ConfigMaps("metallb-system").Update(t.Context(), config("address-pools: []\n"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "ours", "")
	c.wait(t, "theirs", "")
	if got := c.addrs(t, "cloud"); got != "198.51.100.2" {
		t.Errorf("cloud has %q", got)
	}
}

func TestWithoutPoolsTheAddressesOfOthersAreLeftAlone(t *testing.T) {
	c := start(t, nil, config("address-pools: []\n"), balancer("a", has("198.51.100.1")), balancer("b", has("198.51.100.2")))
	eventually(t, "a report", func() bool { return len(c.board.Entries()) == 1 })
	if a, b := c.addrs(t, "a"), c.addrs(t, "b"); a != "198.51.100.1" || b != "198.51.100.2" || c.writes.Load() != 0 {
		t.Errorf("they have %q and %q, after %d writes", a, b, c.writes.Load())
	}
}

func TestAsideWhileMetalLBRuns(t *testing.T) {
	controller := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "controller-1", Labels: map[string]string{"app": "metallb"}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	c := start(t, nil, controller, balancer("web"))
	c.waitEvent(t, "Service/web Warning StandingAside MetalLB in namespace metallb-system serves this Service")
	if got := c.addrs(t, "web"); got != "" {
		t.Errorf("web has %s", got)
	}
	eventually(t, "the reason on the board", func() bool {
		e := c.board.Entries()
		return len(e) == 1 && e[0].Error == "standing aside: MetalLB in namespace metallb-system serves load balancers"
	})
	controller = controller.DeepCopy()
	controller.Status.Conditions[0].Status = corev1.ConditionFalse
	if _, err := c.CoreV1().Pods("metallb-system").UpdateStatus(t.Context(), controller, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.wait(t, "web", "192.0.2.200")
}

func TestAMassOfServicesGetsAddressesOnce(t *testing.T) {
	var objects []runtime.Object
	for i := range 11 {
		objects = append(objects, balancer(fmt.Sprintf("s%02d", i)))
	}
	c := start(t, nil, append(objects, config(onePool))...)
	seen := map[string]bool{}
	for i := range 11 {
		name := fmt.Sprintf("s%02d", i)
		eventually(t, name+" has an address", func() bool { return c.addrs(t, name) != "" })
		seen[c.addrs(t, name)] = true
	}
	if len(seen) != 11 || c.writes.Load() != 11 {
		t.Errorf("%d addresses in %d writes", len(seen), c.writes.Load())
	}
}

func TestWhatDoesNotConcernAddressesIsReachedAtOnce(t *testing.T) {
	c := start(t, nil, balancer("web"))
	c.wait(t, "web", "192.0.2.200")
	plain := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "plain"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.30", Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), plain, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the revision with the other Service", func() bool {
		s := c.builder.Current()
		return s.Service(model.ServiceName{Namespace: "default", Name: "plain"}) != nil && status.Reached(s.Revision)(c.board.Entries())
	})
}
