// Package fakecri is a container runtime without containers, for tests of the kubelet: it keeps what it is told,
// lets tests end containers, and fails calls at random.
//
// It panics when its caller breaks the contract of CRI, as by starting a container twice or removing one that
// runs. It runs no processes; its clock is the time package's, so that it may be faked.
package fakecri

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the fake. Methods of the interface that it does not have panic.
type Runtime struct {
	internalapi.RuntimeService

	// Faults is the share of calls that fail, from 0 to 1. Half of these have done their work before.
	Faults float64
	// Stops is how long a container takes to stop by its signal; 0 is at once, and longer than its grace is never.
	Stops time.Duration
	// Written is what each container has written to its own layer, in bytes.
	Written uint64

	mu         sync.Mutex
	random     *rand.Rand
	next       int
	sandboxes  map[string]*sandbox
	containers map[string]*container
	calls      []string
	codes      []int32
	started    []string // names of containers, in the order of their starts

	boundaries int    // that were passed
	crashAt    int    // the boundary at which the caller dies; 0 for none
	crash      func() // tells the caller
	dead       bool
}

type sandbox struct {
	config  *cri.PodSandboxConfig
	ready   bool
	created time.Time
}

type container struct {
	sandbox                    string
	config                     *cri.ContainerConfig
	state                      cri.ContainerState
	created, started, finished time.Time
	code                       int32
}

// New is an empty runtime. Its faults are the same for the same seed.
func New(seed uint64) *Runtime {
	return &Runtime{
		random:    rand.New(rand.NewPCG(seed, seed)),
		sandboxes: make(map[string]*sandbox), containers: make(map[string]*container),
	}
}

// call records a call, does its work, and fails now and then, before or after.
func (r *Runtime) call(name string, work func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.boundary(); err != nil {
		return err
	}
	r.calls = append(r.calls, name)
	if err := r.faulty(name, work); err != nil {
		return err
	}
	return r.boundary()
}

func (r *Runtime) faulty(name string, work func() error) error {
	fault := status.Error(codes.Unavailable, "injected fault in "+name)
	switch f := r.random.Float64(); {
	case f < r.Faults/2:
		return fault
	case f < r.Faults:
		if err := work(); err != nil {
			return err
		}
		return fault
	}
	return work()
}

// Calls counts the calls of a method.
func (r *Runtime) Calls(name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, call := range r.calls {
		if call == name {
			n++
		}
	}
	return n
}

// Exit ends the newest running container of a name.
func (r *Runtime) Exit(name string, code int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.config.Metadata.Name == name && c.state == cri.ContainerState_CONTAINER_RUNNING {
			r.end(c, code)
			return
		}
	}
	panic("no running container " + name)
}

// Runs reports whether a container of a name runs.
func (r *Runtime) Runs(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.config.Metadata.Name == name && c.state == cri.ContainerState_CONTAINER_RUNNING {
			return true
		}
	}
	return false
}

// Codes are the exit codes of all containers that have ended, in that order.
func (r *Runtime) Codes() []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.codes)
}

// Started are the names of all containers that were started, in that order.
func (r *Runtime) Started() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.started)
}

func (r *Runtime) end(c *container, code int32) {
	r.codes = append(r.codes, code)
	c.state, c.code, c.finished = cri.ContainerState_CONTAINER_EXITED, code, time.Now()
}

// Container is what the newest container of a name was made from, and the sandbox that it is in; nil where there is none.
func (r *Runtime) Container(name string) (*cri.ContainerConfig, *cri.PodSandboxConfig) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var newest *container
	for _, c := range r.containers {
		if c.config.Metadata.Name == name && (newest == nil || c.created.After(newest.created)) {
			newest = c
		}
	}
	if newest == nil {
		return nil, nil
	}
	return newest.config, r.sandboxes[newest.sandbox].config
}

// Empty reports whether nothing is left.
func (r *Runtime) Empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sandboxes)+len(r.containers) == 0
}

func (r *Runtime) id(kind string) string {
	r.next++
	return fmt.Sprintf("%s%d", kind, r.next)
}

// now is the time of a creation, later than that of any other also where the clock stands.
func (r *Runtime) now() time.Time { return time.Now().Add(time.Duration(r.next)) }

func notFound(kind, id string) error { return status.Errorf(codes.NotFound, "no %s %s", kind, id) }

// RunPodSandbox makes a sandbox with the address 10.0.0.1.
func (r *Runtime) RunPodSandbox(_ context.Context, config *cri.PodSandboxConfig, _ string) (id string, err error) {
	err = r.call("RunPodSandbox", func() error {
		for _, s := range r.sandboxes {
			if s.ready && s.config.Metadata.Uid == config.Metadata.Uid {
				panic("a second sandbox beside a ready one of pod " + config.Metadata.Name)
			}
		}
		id = r.id("sandbox")
		r.sandboxes[id] = &sandbox{config: config, ready: true, created: r.now()}
		return nil
	})
	return id, err
}

// StopPodSandbox ends a sandbox and its containers.
func (r *Runtime) StopPodSandbox(_ context.Context, id string) error {
	return r.call("StopPodSandbox", func() error {
		if s := r.sandboxes[id]; s != nil {
			s.ready = false
		}
		for _, c := range r.containers {
			if c.sandbox == id && c.state == cri.ContainerState_CONTAINER_RUNNING {
				r.end(c, 137)
			}
		}
		return nil
	})
}

// RemovePodSandbox removes a sandbox that was stopped.
func (r *Runtime) RemovePodSandbox(_ context.Context, id string) error {
	return r.call("RemovePodSandbox", func() error {
		if s := r.sandboxes[id]; s != nil && s.ready {
			panic("removing a ready sandbox")
		}
		delete(r.sandboxes, id)
		maps.DeleteFunc(r.containers, func(_ string, c *container) bool { return c.sandbox == id })
		return nil
	})
}

// PodSandboxStatus is a sandbox's.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, _ bool) (response *cri.PodSandboxStatusResponse, err error) {
	err = r.call("PodSandboxStatus", func() error {
		s := r.sandboxes[id]
		if s == nil {
			return notFound("sandbox", id)
		}
		response = &cri.PodSandboxStatusResponse{Status: &cri.PodSandboxStatus{
			Id: id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: s.created.UnixNano(),
			Network: &cri.PodSandboxNetworkStatus{Ip: "10.0.0.1"}, Labels: s.config.Labels, Annotations: s.config.Annotations,
			Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: s.config.Linux.SecurityContext.NamespaceOptions}},
		}}
		return nil
	})
	return response, err
}

func (s *sandbox) state() cri.PodSandboxState {
	if s.ready {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

// ListPodSandbox lists by labels.
func (r *Runtime) ListPodSandbox(_ context.Context, filter *cri.PodSandboxFilter) (list []*cri.PodSandbox, err error) {
	err = r.call("ListPodSandbox", func() error {
		for id, s := range r.sandboxes {
			if selects(filter.GetLabelSelector(), s.config.Labels) {
				list = append(list, &cri.PodSandbox{Id: id, Metadata: s.config.Metadata, State: s.state(), CreatedAt: s.created.UnixNano(), Labels: s.config.Labels})
			}
		}
		return nil
	})
	return list, err
}

func selects(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// CreateContainer makes a container in a ready sandbox.
func (r *Runtime) CreateContainer(_ context.Context, sandboxID string, config *cri.ContainerConfig, _ *cri.PodSandboxConfig) (id string, err error) {
	err = r.call("CreateContainer", func() error {
		if s := r.sandboxes[sandboxID]; s == nil || !s.ready {
			return notFound("ready sandbox", sandboxID)
		}
		for _, c := range r.containers {
			if c.sandbox != sandboxID || c.config.Metadata.Name != config.Metadata.Name {
				continue
			}
			if c.state == cri.ContainerState_CONTAINER_RUNNING {
				panic("a second instance beside a running one of container " + config.Metadata.Name)
			}
			if c.config.Metadata.Attempt == config.Metadata.Attempt {
				return status.Errorf(codes.Unknown, "name of container %s is reserved", config.Metadata.Name)
			}
		}
		id = r.id("container")
		r.containers[id] = &container{sandbox: sandboxID, config: config, created: r.now()}
		return nil
	})
	return id, err
}

// StartContainer starts a container that was never started.
func (r *Runtime) StartContainer(_ context.Context, id string) error {
	return r.call("StartContainer", func() error {
		c := r.containers[id]
		if c == nil {
			return notFound("container", id)
		}
		if c.state != cri.ContainerState_CONTAINER_CREATED {
			panic("starting a container twice")
		}
		c.state, c.started = cri.ContainerState_CONTAINER_RUNNING, time.Now()
		r.started = append(r.started, c.config.Metadata.Name)
		return nil
	})
}

// StopContainer waits for the container to stop, and kills it after its grace.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace int64) error {
	patience := min(r.Stops, time.Duration(grace)*time.Second)
	select {
	case <-time.After(patience):
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	return r.call("StopContainer", func() error {
		c := r.containers[id]
		if c == nil {
			return notFound("container", id)
		}
		if c.state == cri.ContainerState_CONTAINER_RUNNING {
			code := int32(0)
			if patience < r.Stops {
				code = 137
			}
			r.end(c, code)
		}
		return nil
	})
}

// UpdateContainerResources gives a container that runs other resources.
func (r *Runtime) UpdateContainerResources(_ context.Context, id string, resources *cri.ContainerResources) error {
	return r.call("UpdateContainerResources", func() error {
		c := r.containers[id]
		if c == nil || c.state != cri.ContainerState_CONTAINER_RUNNING {
			return notFound("running container", id)
		}
		c.config.Linux.Resources = resources.Linux
		return nil
	})
}

// RemoveContainer removes a container that does not run.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	return r.call("RemoveContainer", func() error {
		if c := r.containers[id]; c != nil && c.state == cri.ContainerState_CONTAINER_RUNNING {
			panic("removing a running container")
		}
		delete(r.containers, id)
		return nil
	})
}

// ListContainers lists by labels.
func (r *Runtime) ListContainers(_ context.Context, filter *cri.ContainerFilter) (list []*cri.Container, err error) {
	err = r.call("ListContainers", func() error {
		for id, c := range r.containers {
			if selects(filter.GetLabelSelector(), c.config.Labels) && (filter.GetPodSandboxId() == "" || filter.GetPodSandboxId() == c.sandbox) {
				list = append(list, &cri.Container{Id: id, PodSandboxId: c.sandbox, Metadata: c.config.Metadata, State: c.state, CreatedAt: c.created.UnixNano(), Labels: c.config.Labels})
			}
		}
		return nil
	})
	return list, err
}

// ContainerStatus is a container's.
func (r *Runtime) ContainerStatus(_ context.Context, id string, _ bool) (response *cri.ContainerStatusResponse, err error) {
	err = r.call("ContainerStatus", func() error {
		c := r.containers[id]
		if c == nil {
			return notFound("container", id)
		}
		s := &cri.ContainerStatus{
			Id: id, Metadata: c.config.Metadata, State: c.state, CreatedAt: c.created.UnixNano(), Image: c.config.Image,
			Labels: c.config.Labels, Annotations: c.config.Annotations, ExitCode: c.code,
		}
		if !c.started.IsZero() {
			s.StartedAt = c.started.UnixNano()
		}
		if c.state == cri.ContainerState_CONTAINER_EXITED {
			s.FinishedAt = c.finished.UnixNano()
			s.Reason = "Error"
			if c.code == 0 {
				s.Reason = "Completed"
			}
		}
		response = &cri.ContainerStatusResponse{Status: s}
		return nil
	})
	return response, err
}

// ListContainerStats says that every container has written Written bytes.
func (r *Runtime) ListContainerStats(_ context.Context, filter *cri.ContainerStatsFilter) (list []*cri.ContainerStats, err error) {
	err = r.call("ListContainerStats", func() error {
		for id, c := range r.containers {
			if selects(filter.GetLabelSelector(), c.config.Labels) {
				list = append(list, &cri.ContainerStats{
					Attributes:    &cri.ContainerAttributes{Id: id, Metadata: c.config.Metadata},
					WritableLayer: &cri.FilesystemUsage{UsedBytes: &cri.UInt64Value{Value: r.Written}},
				})
			}
		}
		return nil
	})
	return list, err
}

// ExecSync runs nothing and succeeds.
func (r *Runtime) ExecSync(context.Context, string, []string, time.Duration) (stdout, stderr []byte, err error) {
	return nil, nil, r.call("ExecSync", func() error { return nil })
}

// ReopenContainerLog does nothing.
func (r *Runtime) ReopenContainerLog(context.Context, string) error {
	return r.call("ReopenContainerLog", func() error { return nil })
}
