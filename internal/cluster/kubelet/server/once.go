//go:build linux

package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	streaming "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// idleTimeout ends a stream on which nothing moves, as the runtime's own server does.
const idleTimeout = 4 * time.Hour

// forOneClient reports whether a container lives for one client's input (`kubectl run -i`), without a terminal. Its
// client wants all that it wrote, also what it wrote before the client came, which an attach does not give.
func forOneClient(pod *v1.Pod, container string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool {
		return c.Name == container && c.StdinOnce && !c.TTY
	})
}

// attachOnce gives the client of such a container its output, from its log, and attaches its input alone. A container
// that has ended meanwhile is no error: kubectl would fetch the whole log again.
func (s Server) attachOnce(w http.ResponseWriter, r *http.Request, pod *v1.Pod, name string) {
	instances, err := s.instances(r.Context(), pod, name)
	if err == nil && len(instances) == 0 {
		err = fmt.Errorf("container %s of pod %s/%s: %w", name, pod.Namespace, pod.Name, errNotFound)
	}
	if err != nil {
		fail(w, err)
		return
	}
	options, err := streaming.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a := once{Server: s, pod: pod, container: instances[0]}
	streaming.ServeAttach(w, r, a, pod.Name, string(pod.UID), name, options, idleTimeout,
		streaming.DefaultStreamCreationTimeout, streaming.SupportedStreamingProtocols)
}

// once is the attacher of one request.
type once struct {
	Server
	pod       *v1.Pod
	container *cri.Container
}

// AttachContainer returns when the container has ended and its output is written.
func (a once) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan streaming.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	var input sync.WaitGroup
	defer input.Wait()
	defer cancel()
	if in != nil && a.container.State == cri.ContainerState_CONTAINER_RUNNING {
		input.Go(func() {
			if err := a.input(ctx, in); err != nil && ctx.Err() == nil {
				a.Log.Debug("the input of a container ended", "pod", a.pod.Namespace+"/"+a.pod.Name, "err", err)
			}
		})
	}
	path := a.logFile(a.pod, a.container)
	seen := a.shown.take(a.container.Id, path)
	stdout, stderr := &skipper{orDiscard(out), seen.stdout}, &skipper{orDiscard(errs), seen.stderr}
	return logs.ReadLogs(ctx, path, a.container.Id, &logs.LogOptions{Follow: true}, settled{a.Runtime}, stdout, stderr)
}

// input copies to the container until in ends or ctx does.
func (a once) input(ctx context.Context, in io.Reader) error {
	response, err := a.Runtime.Attach(ctx, &cri.AttachRequest{ContainerId: a.container.Id, Stdin: true})
	if err != nil {
		return err
	}
	location, err := url.Parse(response.Url)
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, location)
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in})
}

func orDiscard(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
