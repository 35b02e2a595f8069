package probe

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/kubernetes/pkg/probe"
)

// maxTries is how often a probe without a result is sent before that counts (kubelet's maxProbeRetries).
const maxTries = 3

// Container is a running container to be watched. It is not changed.
type Container struct {
	ID        string
	Pod       *v1.Pod
	Spec      *v1.Container
	PodIP     string
	StartedAt time.Time
	// WasStarted and WasReady are what an earlier life of this program knew of it: a restart of ours must not make
	// a container unready.
	WasStarted, WasReady bool
}

// State is what the probes of a container have found so far. Without a probe its field is true.
type State struct {
	Started bool   // the startup probe has succeeded
	Ready   bool   // started, and the readiness probe succeeds
	Alive   bool   // neither liveness nor startup probe has failed
	Failed  string // the kind of probe that failed, "Liveness" or "Startup"; empty while Alive
}

// Monitor watches containers. Changed is called, from any goroutine, when the State of one has changed; Event when a
// probe fails. Both must not block.
type Monitor struct {
	Prober  Prober
	Changed func(*v1.Pod)
	Event   func(c Container, eventType, reason, message string)

	mu      sync.Mutex
	watched map[string]*watch
	stopped bool
	running sync.WaitGroup
}

// watch is one container's.
type watch struct {
	Container
	mu       sync.Mutex
	state    State
	cancel   context.CancelFunc // all probes
	demanded context.CancelFunc // startup and liveness
}

// Watch begins to watch a container until Forget or Stop. A second call for its ID does nothing.
func (m *Monitor) Watch(c Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped || m.watched[c.ID] != nil {
		return
	}
	if m.watched == nil {
		m.watched = make(map[string]*watch)
	}
	ctx, cancel := context.WithCancel(context.Background())
	demanding, demanded := context.WithCancel(ctx)
	started := c.Spec.StartupProbe == nil || c.WasStarted
	w := &watch{Container: c, cancel: cancel, demanded: demanded, state: State{
		Started: started,
		Ready:   started && (c.Spec.ReadinessProbe == nil || c.WasReady),
		Alive:   true,
	}}
	m.watched[c.ID] = w
	if c.Spec.StartupProbe != nil || c.Spec.ReadinessProbe != nil || c.Spec.LivenessProbe != nil {
		m.running.Go(func() { m.run(ctx, demanding, w) })
	}
}

// State is what is known of a container; ok is false if it is not watched.
func (m *Monitor) State(id string) (state State, ok bool) {
	m.mu.Lock()
	w := m.watched[id]
	m.mu.Unlock()
	if w == nil {
		return State{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, true
}

// Forget ends the watch of a container that has ended.
func (m *Monitor) Forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watched[id]; w != nil {
		w.cancel()
		delete(m.watched, id)
	}
}

// Terminating ends startup and liveness probes of a container that is being stopped. Readiness goes on, so that
// the pod's readiness stays true to the facts.
func (m *Monitor) Terminating(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watched[id]; w != nil {
		w.demanded()
	}
}

// Stop ends all watches and waits for them.
func (m *Monitor) Stop() {
	m.mu.Lock()
	m.stopped = true
	for _, w := range m.watched {
		w.cancel()
	}
	m.mu.Unlock()
	m.running.Wait()
}

// run sends a container's probes: startup until it succeeds, and then the others side by side.
func (m *Monitor) run(ctx, demanding context.Context, w *watch) {
	if spec := w.Spec.StartupProbe; spec != nil && !w.WasStarted && !m.startup(demanding, w, spec) {
		return
	}
	var both sync.WaitGroup
	if spec := w.Spec.LivenessProbe; spec != nil {
		both.Go(func() {
			m.repeat(demanding, w, spec, "Liveness", func(r Result) bool {
				if r == probe.Failure {
					m.set(w, func(s *State) { s.Alive, s.Failed = false, "Liveness" })
				}
				return r != probe.Failure // the container is to be restarted
			})
		})
	}
	if spec := w.Spec.ReadinessProbe; spec != nil {
		both.Go(func() {
			m.repeat(ctx, w, spec, "Readiness", func(r Result) bool {
				m.set(w, func(s *State) { s.Ready = r == probe.Success })
				return true
			})
		})
	}
	both.Wait()
}

// startup reports whether the startup probe succeeded.
func (m *Monitor) startup(ctx context.Context, w *watch, spec *v1.Probe) (started bool) {
	m.repeat(ctx, w, spec, "Startup", func(r Result) bool {
		m.set(w, func(s *State) {
			if r == probe.Failure {
				s.Alive, s.Failed = false, "Startup"
				return
			}
			s.Started, started = true, true
			s.Ready = w.Spec.ReadinessProbe == nil
		})
		return false
	})
	return started
}

// repeat sends a probe at once after its initial delay and then once a period. A result is decided when it has come
// as often in a row as its threshold says; repeat ends when decide returns false.
func (m *Monitor) repeat(ctx context.Context, w *watch, spec *v1.Probe, kind string, decide func(Result) bool) {
	first := time.Until(w.StartedAt.Add(time.Duration(spec.InitialDelaySeconds) * time.Second))
	timer := time.NewTimer(max(0, first))
	defer timer.Stop()
	var last Result
	var run int32
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(time.Duration(spec.PeriodSeconds) * time.Second)
		result, ok := m.once(ctx, w, spec, kind)
		if ctx.Err() != nil {
			return
		}
		if !ok {
			continue
		}
		if result == last {
			run++
		} else {
			last, run = result, 1
		}
		threshold := spec.FailureThreshold
		if result == probe.Success {
			threshold = spec.SuccessThreshold
		}
		if run >= threshold && !decide(result) {
			return
		}
	}
}

// once sends a probe, more than once where it gives no result, and tells of failures. A warning is a success.
func (m *Monitor) once(ctx context.Context, w *watch, spec *v1.Probe, kind string) (Result, bool) {
	var result Result
	var output string
	var err error
	for range maxTries {
		if result, output, err = m.Prober.Probe(ctx, spec, w.Container); err == nil || ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return "", false
	}
	switch {
	case err != nil:
		m.Event(w.Container, v1.EventTypeWarning, events.ContainerUnhealthy, kind+" probe errored and resulted in "+string(result)+" state: "+err.Error())
		return "", false
	case result == probe.Warning:
		m.Event(w.Container, v1.EventTypeWarning, events.ContainerProbeWarning, kind+" probe warning: "+output)
		return probe.Success, true
	case result == probe.Success:
		return probe.Success, true
	}
	m.Event(w.Container, v1.EventTypeWarning, events.ContainerUnhealthy, kind+" probe failed: "+output)
	return probe.Failure, true
}

func (m *Monitor) set(w *watch, change func(*State)) {
	w.mu.Lock()
	old := w.state
	change(&w.state)
	changed := w.state != old
	w.mu.Unlock()
	if changed {
		m.Changed(w.Pod)
	}
}
