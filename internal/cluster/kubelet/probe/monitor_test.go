package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
)

// script is a container whose probes answer by the clock: each kind of probe is the command of that name.
type script struct {
	start  time.Time
	mu     sync.Mutex
	asked  map[string][]string // by command: when, as "3s"
	answer func(command string, at time.Duration) bool
	events []string
}

func (s *script) exec(_ context.Context, _ string, command []string, _ time.Duration) ([]byte, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Since(s.start)
	s.asked[command[0]] = append(s.asked[command[0]], at.String())
	if s.answer(command[0], at) {
		return nil, 0, nil
	}
	return []byte("bad"), 1, nil
}

func (s *script) monitor() *Monitor {
	return &Monitor{
		Prober:  Prober{Exec: s.exec},
		Changed: func(*v1.Pod) {},
		Event: func(_ Container, kind, reason, message string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, kind+" "+reason+": "+message)
		},
	}
}

func newScript(answer func(command string, at time.Duration) bool) *script {
	return &script{start: time.Now(), asked: make(map[string][]string), answer: answer}
}

func command(name string, delay, period, failures int32) *v1.Probe {
	return &v1.Probe{
		ProbeHandler:        v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{name}}},
		InitialDelaySeconds: delay, PeriodSeconds: period, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: failures,
	}
}

func watched(c *v1.Container) Container {
	return Container{ID: "id", Pod: &v1.Pod{}, Spec: c, PodIP: "127.0.0.1", StartedAt: time.Now()}
}

func mustState(t *testing.T, m *Monitor) State {
	t.Helper()
	s, ok := m.State("id")
	if !ok {
		t.Fatal("not watched")
	}
	return s
}

func TestWithoutProbesAContainerIsStartedReadyAndAlive(t *testing.T) {
	m := newScript(nil).monitor()
	m.Watch(watched(&v1.Container{}))
	if s := mustState(t, m); s != (State{Started: true, Ready: true, Alive: true}) {
		t.Errorf("state %+v", s)
	}
	m.Forget("id")
	if _, ok := m.State("id"); ok {
		t.Error("still watched")
	}
	m.Stop()
}

func TestReadinessIsAskedAtOnceAndThenOnceAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(_ string, at time.Duration) bool { return at < 20*time.Second || at >= 50*time.Second })
		m := s.monitor()
		m.Watch(watched(&v1.Container{ReadinessProbe: command("ready", 0, 10, 2)}))
		if s := mustState(t, m); s.Ready {
			t.Error("ready before it was asked")
		}
		for _, c := range []struct {
			until time.Duration
			ready bool
		}{{0, true}, {15 * time.Second, true}, {25 * time.Second, true}, {35 * time.Second, false}, {45 * time.Second, false}, {55 * time.Second, true}} {
			time.Sleep(c.until - time.Since(s.start))
			synctest.Wait()
			if got := mustState(t, m).Ready; got != c.ready {
				t.Errorf("after %v ready is %v", c.until, got)
			}
		}
		m.Stop()
		if want := []string{"0s", "10s", "20s", "30s", "40s", "50s"}; !slices.Equal(s.asked["ready"], want) {
			t.Errorf("asked at %v", s.asked["ready"])
		}
		if len(s.events) != 3 || s.events[0] != "Warning Unhealthy: Readiness probe failed: bad" {
			t.Errorf("events %q", s.events)
		}
	})
}

func TestInitialDelayCountsFromTheContainersStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) bool { return true })
		m := s.monitor()
		c := watched(&v1.Container{LivenessProbe: command("live", 30, 10, 1)})
		c.StartedAt = time.Now().Add(-20 * time.Second)
		m.Watch(c)
		time.Sleep(15 * time.Second)
		m.Stop()
		if want := []string{"10s"}; !slices.Equal(s.asked["live"], want) {
			t.Errorf("asked at %v", s.asked["live"])
		}
	})
}

func TestAFailedLivenessIsToldOnceItsThresholdIsReachedAndNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(_ string, at time.Duration) bool { return at == 10*time.Second })
		m := s.monitor()
		m.Watch(watched(&v1.Container{LivenessProbe: command("live", 0, 10, 3)}))
		time.Sleep(35 * time.Second)
		if s := mustState(t, m); !s.Alive {
			t.Error("dead before three failures in a row")
		}
		time.Sleep(time.Minute)
		if s := mustState(t, m); s.Alive || s.Failed != "Liveness" || !s.Ready {
			t.Errorf("state %+v", s)
		}
		m.Stop()
		if n := len(s.asked["live"]); n != 5 {
			t.Errorf("asked at %v", s.asked["live"])
		}
	})
}

func TestOtherProbesWaitForTheStartupProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(_ string, at time.Duration) bool { return at >= 20*time.Second })
		m := s.monitor()
		m.Watch(watched(&v1.Container{StartupProbe: command("start", 0, 10, 5), LivenessProbe: command("live", 0, 10, 1), ReadinessProbe: command("ready", 0, 10, 1)}))
		time.Sleep(15 * time.Second)
		if s := mustState(t, m); s.Started || s.Ready || !s.Alive {
			t.Errorf("before it has started: %+v", s)
		}
		time.Sleep(6 * time.Second)
		if s := mustState(t, m); !s.Started || !s.Ready {
			t.Errorf("once it has started: %+v", s)
		}
		m.Stop()
		if s.asked["live"][0] != "20s" || s.asked["ready"][0] != "20s" || len(s.asked["start"]) != 3 {
			t.Errorf("asked at %v", s.asked)
		}
	})
}

func TestAFailedStartupKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) bool { return false })
		m := s.monitor()
		m.Watch(watched(&v1.Container{StartupProbe: command("start", 0, 1, 2), ReadinessProbe: command("ready", 0, 1, 1)}))
		time.Sleep(10 * time.Second)
		if s := mustState(t, m); s.Alive || s.Failed != "Startup" || s.Started {
			t.Errorf("state %+v", s)
		}
		m.Stop()
		if len(s.asked["ready"]) != 0 {
			t.Errorf("readiness was asked at %v", s.asked["ready"])
		}
	})
}

func TestWhileTerminatingReadinessGoesOnAndLivenessDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(command string, at time.Duration) bool { return at < 15*time.Second })
		m := s.monitor()
		m.Watch(watched(&v1.Container{LivenessProbe: command("live", 0, 10, 1), ReadinessProbe: command("ready", 0, 10, 1)}))
		time.Sleep(12 * time.Second)
		m.Terminating("id")
		time.Sleep(20 * time.Second)
		if s := mustState(t, m); !s.Alive || s.Ready {
			t.Errorf("state %+v", s)
		}
		m.Stop()
	})
}

func TestWhatWasReadyBeforeARestartOfOursStaysReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) bool { return true })
		m := s.monitor()
		c := watched(&v1.Container{StartupProbe: command("start", 0, 10, 1), ReadinessProbe: command("ready", 5, 10, 3)})
		c.WasStarted, c.WasReady = true, true
		m.Watch(c)
		if s := mustState(t, m); !s.Started || !s.Ready {
			t.Errorf("state %+v", s)
		}
		time.Sleep(7 * time.Second)
		m.Stop()
		if len(s.asked["start"]) != 0 || len(s.asked["ready"]) != 1 {
			t.Errorf("asked at %v", s.asked)
		}
	})
}

func prober() Prober {
	return Prober{
		Dial: new(net.Dialer).DialContext,
		Exec: func(ctx context.Context, _ string, command []string, _ time.Duration) ([]byte, int, error) {
			switch command[0] {
			case "slow":
				return nil, 0, fmt.Errorf("%w: slow", ErrCommandTimedOut)
			case "gone":
				return nil, 0, errors.New("no such container")
			}
			code, err := strconv.Atoi(command[0])
			return []byte("said so"), code, err
		},
	}
}

func TestProbe(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/bad" || r.Host == "wrong" || r.Header.Get("User-Agent") == "":
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/away":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case r.URL.Path == "/slow":
			time.Sleep(1500 * time.Millisecond)
		}
	}))
	t.Cleanup(page.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	portOf := func(a net.Addr) intstr.IntOrString { return intstr.FromInt32(int32(a.(*net.TCPAddr).Port)) }
	at := func(path string, headers ...v1.HTTPHeader) *v1.HTTPGetAction {
		return &v1.HTTPGetAction{Path: path, Port: portOf(page.Listener.Addr()), HTTPHeaders: headers}
	}
	named := at("/")
	named.Port = intstr.FromString("web")
	healthy, unhealthy := "good", "bad"
	grpcPort := serveHealth(t, map[string]bool{healthy: true, unhealthy: false})
	for name, c := range map[string]struct {
		handler v1.ProbeHandler
		want    Result
		output  string // a part of it
	}{
		"exec, 0":            {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"0"}}}, probe.Success, "said so"},
		"exec, 2":            {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"2"}}}, probe.Failure, "said so"},
		"exec, timeout":      {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"slow"}}}, probe.Failure, "command timed out"},
		"exec, no container": {v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"gone"}}}, probe.Unknown, ""},
		"HTTP, 200":          {v1.ProbeHandler{HTTPGet: at("/")}, probe.Success, ""},
		"HTTP, named port":   {v1.ProbeHandler{HTTPGet: named}, probe.Success, ""},
		"HTTP, 500":          {v1.ProbeHandler{HTTPGet: at("/bad")}, probe.Failure, "HTTP probe failed with statuscode: 500"},
		"HTTP, Host header":  {v1.ProbeHandler{HTTPGet: at("/", v1.HTTPHeader{Name: "Host", Value: "wrong"})}, probe.Failure, "statuscode: 500"},
		"HTTP, away":         {v1.ProbeHandler{HTTPGet: at("/away")}, probe.Warning, "Probe terminated redirects"},
		"HTTP, slow":         {v1.ProbeHandler{HTTPGet: at("/slow")}, probe.Failure, "Client.Timeout exceeded"},
		"TCP, open":          {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: portOf(page.Listener.Addr())}}, probe.Success, ""},
		"TCP, closed":        {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: portOf(closed.Addr())}}, probe.Failure, "connection refused"},
		"gRPC, serving":      {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: grpcPort, Service: &healthy}}, probe.Success, "service healthy"},
		"gRPC, not serving":  {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: grpcPort, Service: &unhealthy}}, probe.Failure, "NOT_SERVING"},
		"gRPC, closed":       {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(closed.Addr().(*net.TCPAddr).Port)}}, probe.Failure, "connection refused"},
		"none":               {v1.ProbeHandler{}, probe.Unknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			container := watched(&v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: portOf(page.Listener.Addr()).IntVal}}})
			result, output, err := prober().Probe(t.Context(), &v1.Probe{ProbeHandler: c.handler, TimeoutSeconds: 1}, container)
			if result != c.want || (err != nil) != (c.want == probe.Unknown) || !strings.Contains(output, c.output) {
				t.Errorf("%s, %q, %v; want %s, %q", result, output, err, c.want, c.output)
			}
		})
	}
}

func serveHealth(t *testing.T, services map[string]bool) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	states := health.NewServer()
	for name, serving := range services {
		state := healthpb.HealthCheckResponse_NOT_SERVING
		if serving {
			state = healthpb.HealthCheckResponse_SERVING
		}
		states.SetServingStatus(name, state)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, states)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return int32(l.Addr().(*net.TCPAddr).Port)
}
