//go:build linux

package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// instances are a container's, the newest first.
func (s Server) instances(ctx context.Context, pod *v1.Pod, container string) ([]*cri.Container, error) {
	list, err := s.Runtime.ListContainers(ctx, &cri.ContainerFilter{LabelSelector: map[string]string{
		kubelettypes.KubernetesPodUIDLabel: string(pod.UID), kubelettypes.KubernetesContainerNameLabel: container,
	}})
	slices.SortFunc(list, func(a, b *cri.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	return list, err
}

// logs answers with a container's log, line by line as it comes.
func (s Server) logs(w http.ResponseWriter, r *http.Request) {
	pod, err := s.pod(r)
	if err != nil {
		fail(w, err)
		return
	}
	options, previous, err := logOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("container")
	c, err := s.logged(r.Context(), pod, name, previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path := s.logFile(pod, c)
	w.Header().Set("Content-Type", "text/plain")
	out, errs := streams(r.URL.Query().Get("stream"), &flusher{w})
	stdout, stderr := &counter{Writer: out}, &counter{Writer: errs}
	file, _ := os.Stat(path) // what is not there is not shown
	err = logs.ReadLogs(r.Context(), path, c.Id, options, settled{s.Runtime}, stdout, stderr)
	if file != nil && *options == (logs.LogOptions{}) && forOneClient(pod, name) {
		s.shown.remember(c.Id, shownLog{file, stdout.n, stderr.n, time.Now()})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("reading a log", "pod", pod.Namespace+"/"+pod.Name, "container", name, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// logFile is the newest log of an instance.
func (s Server) logFile(pod *v1.Pod, c *cri.Container) string {
	folder := fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)
	return filepath.Join(s.LogDir, folder, c.GetMetadata().GetName(), fmt.Sprintf("%d.log", c.GetMetadata().GetAttempt()))
}

// logged is the instance whose log is meant. The texts are the kubelet's (validateContainerLogStatus).
func (s Server) logged(ctx context.Context, pod *v1.Pod, container string, previous bool) (*cri.Container, error) {
	instances, err := s.instances(ctx, pod, container)
	if err != nil {
		return nil, err
	}
	switch {
	case previous && len(instances) > 1:
		return instances[1], nil
	case previous && len(instances) == 1 && instances[0].State == cri.ContainerState_CONTAINER_EXITED && waits(pod, container):
		return instances[0], nil
	case previous:
		return nil, fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case len(instances) == 0:
		return nil, fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, reason(pod, container))
	}
	return instances[0], nil
}

// waits reports whether a container is to start again: its newest instance is then the previous one.
func waits(pod *v1.Pod, container string) bool {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.Name == container {
			return s.State.Waiting != nil
		}
	}
	return false
}

// reason is why a container has not started.
func reason(pod *v1.Pod, container string) string {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.Name == container && s.State.Waiting != nil {
			switch s.State.Waiting.Reason {
			case "ErrImagePull":
				return "image can't be pulled"
			case "ImagePullBackOff":
				return "trying and failing to pull image"
			}
			return s.State.Waiting.Reason
		}
	}
	return "no status yet"
}

// logOptions reads what v1.PodLogOptions becomes in a query.
func logOptions(q url.Values, now time.Time) (options *logs.LogOptions, previous bool, err error) {
	options = &logs.LogOptions{Follow: isTrue(q, "follow"), Timestamp: isTrue(q, "timestamps")}
	for name, field := range map[string]**int64{"tailLines": &options.TailLines, "limitBytes": &options.LimitBytes} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, false, fmt.Errorf("%s %q is not a number of at least 0", name, text)
		}
		*field = &n
	}
	if text := q.Get("sinceSeconds"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return nil, false, fmt.Errorf("sinceSeconds %q is not a number of at least 1", text)
		}
		options.Since = now.Add(-time.Duration(n) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		if options.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, false, fmt.Errorf("sinceTime: %w", err)
		}
	}
	return options, isTrue(q, "previous"), nil
}

// streams chooses what of a log is wanted.
func streams(name string, w io.Writer) (stdout, stderr io.Writer) {
	switch name {
	case v1.LogStreamStdout:
		return w, io.Discard
	case v1.LogStreamStderr:
		return io.Discard, w
	}
	return w, w
}

// flusher sends each line at once.
type flusher struct{ http.ResponseWriter }

func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
