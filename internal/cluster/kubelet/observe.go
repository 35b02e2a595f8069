//go:build linux

package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	kubelettypes "k8s.io/kubelet/pkg/types"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"

	"minato/internal/cluster/cni"
)

// The labels and annotations by which a later life of this program knows its sandboxes and containers.
const (
	labelNode             = "minato.io/node"
	annotationHash        = "io.kubernetes.container.hash"
	annotationRestarts    = "io.kubernetes.container.restartCount"
	annotationMessagePath = "io.kubernetes.container.terminationMessagePath"
	annotationResources   = "minato.io/resources" // requests and limits that a container was made with, as JSON
	annotationMessageFrom = "io.kubernetes.container.terminationMessagePolicy"
)

const runtimeName = "containerd"

// identity is what names a pod even when the API knows it no longer.
type identity struct {
	namespace, name string
	uid             types.UID
}

func identify(pod *v1.Pod) identity { return identity{pod.Namespace, pod.Name, pod.UID} }

// observe reads all that the runtime has of a pod, the newest first.
func observe(ctx context.Context, runtime internalapi.RuntimeService, pod identity) (*kubecontainer.PodStatus, error) {
	selector := map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.uid)}
	status := &kubecontainer.PodStatus{ID: pod.uid, Name: pod.name, Namespace: pod.namespace, TimeStamp: time.Now()}
	sandboxes, err := runtime.ListPodSandbox(ctx, &cri.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	slices.SortFunc(sandboxes, func(a, b *cri.PodSandbox) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	for i, sandbox := range sandboxes {
		response, err := runtime.PodSandboxStatus(ctx, sandbox.Id, false)
		if err != nil {
			return nil, fmt.Errorf("sandbox status: %w", err)
		}
		s := response.GetStatus()
		markHostNetwork(s)
		status.SandboxStatuses = append(status.SandboxStatuses, s)
		if i == 0 && s.State == cri.PodSandboxState_SANDBOX_READY {
			status.IPs = sandboxIPs(s)
		}
	}
	containers, err := runtime.ListContainers(ctx, &cri.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	slices.SortFunc(containers, func(a, b *cri.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	for _, container := range containers {
		response, err := runtime.ContainerStatus(ctx, container.Id, false)
		if err != nil {
			return nil, fmt.Errorf("container status: %w", err)
		}
		s := containerStatus(ctx, runtime, response.GetStatus())
		status.ContainerStatuses = append(status.ContainerStatuses, s)
		if len(sandboxes) > 0 && container.PodSandboxId == sandboxes[0].Id {
			status.ActiveContainerStatuses = append(status.ActiveContainerStatuses, s)
		}
	}
	return status, nil
}

// markHostNetwork says of a sandbox in a virtual node's namespace what upstream's code expects of a hostNetwork
// pod's; to the runtime it is an ordinary one.
func markHostNetwork(s *cri.PodSandboxStatus) {
	if s.GetAnnotations()[cni.AnnotationHostNetwork] == "true" {
		s.GetLinux().GetNamespaces().GetOptions().Network = cri.NamespaceMode_NODE
	}
}

// sandboxIPs are a pod's own addresses; one in the host's or its node's namespace has none.
func sandboxIPs(s *cri.PodSandboxStatus) []string {
	if s.GetLinux().GetNamespaces().GetOptions().GetNetwork() == cri.NamespaceMode_NODE || s.GetNetwork().GetIp() == "" {
		return nil
	}
	ips := []string{s.Network.Ip}
	for _, ip := range s.Network.AdditionalIps {
		ips = append(ips, ip.Ip)
	}
	return ips
}

func containerStatus(ctx context.Context, runtime internalapi.RuntimeService, s *cri.ContainerStatus) *kubecontainer.Status {
	hash, _ := strconv.ParseUint(s.Annotations[annotationHash], 16, 64)
	restarts, _ := strconv.Atoi(s.Annotations[annotationRestarts])
	status := &kubecontainer.Status{
		ID: kubecontainer.ContainerID{Type: runtimeName, ID: s.Id}, Name: s.GetMetadata().GetName(),
		Image: s.GetImage().GetImage(), ImageID: s.ImageRef, ImageRef: s.ImageRef,
		Hash: hash, RestartCount: restarts, State: containerState(s.State), CreatedAt: time.Unix(0, s.CreatedAt),
	}
	status.Resources = madeWith(s.Annotations[annotationResources])
	if u := s.GetUser().GetLinux(); u != nil {
		status.User = &kubecontainer.ContainerUser{Linux: &kubecontainer.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	if s.State != cri.ContainerState_CONTAINER_CREATED {
		status.StartedAt = time.Unix(0, s.StartedAt)
	}
	if s.State != cri.ContainerState_CONTAINER_EXITED {
		return status
	}
	status.Reason, status.ExitCode, status.FinishedAt = s.Reason, int(s.ExitCode), time.Unix(0, s.FinishedAt)
	status.Message = terminationMessage(ctx, runtime, s)
	if s.Message != "" && status.Message != "" {
		status.Message = s.Message + ": " + status.Message
	} else {
		status.Message += s.Message
	}
	return status
}

func containerState(s cri.ContainerState) kubecontainer.State {
	switch s {
	case cri.ContainerState_CONTAINER_CREATED:
		return kubecontainer.ContainerStateCreated
	case cri.ContainerState_CONTAINER_RUNNING:
		return kubecontainer.ContainerStateRunning
	case cri.ContainerState_CONTAINER_EXITED:
		return kubecontainer.ContainerStateExited
	}
	return kubecontainer.ContainerStateUnknown
}

// terminationMessage is what the container left in its file, or the end of its log where it asked for that and
// failed (API: terminationMessagePolicy).
func terminationMessage(ctx context.Context, runtime internalapi.RuntimeService, s *cri.ContainerStatus) string {
	fallback := s.Annotations[annotationMessageFrom] == string(v1.TerminationMessageFallbackToLogsOnError) && s.ExitCode != 0
	for _, mount := range s.Mounts {
		if path := s.Annotations[annotationMessagePath]; path == "" || mount.ContainerPath != path {
			continue
		}
		message, err := readAtMost(mount.HostPath, kubecontainer.MaxContainerTerminationMessageLength)
		if err != nil && !os.IsNotExist(err) {
			return fmt.Sprintf("Error on reading termination log %s: %v", mount.HostPath, err)
		}
		if message != "" {
			return message
		}
	}
	if !fallback || s.LogPath == "" {
		return ""
	}
	var out strings.Builder
	lines := int64(kubecontainer.MaxContainerTerminationMessageLogLines)
	limit := int64(kubecontainer.MaxContainerTerminationMessageLogLength)
	options := &logs.LogOptions{TailLines: &lines, LimitBytes: &limit}
	if err := logs.ReadLogs(ctx, s.LogPath, s.Id, options, runtime, &out, &out); err != nil {
		return fmt.Sprintf("Error on reading termination message from logs: %v", err)
	}
	return out.String()
}

// readAtMost is the end of a file.
func readAtMost(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if fi.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
}
