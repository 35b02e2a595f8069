//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/events"
	volumevalidation "k8s.io/kubernetes/pkg/volume/validation"

	"minato/internal/cluster/kubelet/env"
	"minato/internal/cluster/kubelet/volumes"
)

// The reasons of a container that could not be started (pkg/kubelet/kuberuntime).
const (
	reasonConfig    = "CreateContainerConfigError"
	reasonCreate    = "CreateContainerError"
	reasonRun       = "RunContainerError"
	reasonPostStart = "PostStartHookError"
)

// place is where a container is started: its pod's sandbox and what is in it.
type place struct {
	sandboxID string
	sandbox   *cri.PodSandboxConfig
	ips       []string
	volumes   map[string]volumes.Volume
	status    *kubecontainer.PodStatus
}

// startContainer pulls, creates and starts one container, and runs its postStart hook (startContainer of
// pkg/kubelet/kuberuntime). Its error is a *startError, and an event has told of it. The end of ctx stops a pull
// and a hook; what is between them is short, and never cut in half.
func (k *Kubelet) startContainer(ctx context.Context, pod *v1.Pod, c *v1.Container, p place) error {
	ref, err := k.image(ctx, pod, c, p.sandbox)
	if err != nil {
		return k.failed(pod, c, "", err, "")
	}
	whole := context.WithoutCancel(ctx)
	id, err := k.createAndStart(whole, pod, c, ref, p)
	if err != nil || c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return err
	}
	failure := k.hook(ctx, pod, c, id, p.ips, c.Lifecycle.PostStart)
	switch {
	case failure == "":
		return nil
	case ctx.Err() != nil: // the pod is being deleted, or we end
		return &startError{reason: reasonPostStart, message: ctx.Err().Error()}
	}
	// The event does not hold the output, which may hold secrets.
	k.event(pod, c, v1.EventTypeWarning, events.FailedPostStartHook, "PostStartHook failed")
	kill := killAction{kubecontainer.ContainerID{Type: runtimeName, ID: id}, c, "FailedPostStartHook", killedOtherwise}
	if err := k.killContainer(ctx, pod, kill, p.ips, nil); err != nil {
		k.cfg.Log.Warn("killing a container whose postStart hook failed", "pod", podFormat(pod), "container", c.Name, "err", err)
	}
	return &startError{reason: reasonPostStart, message: failure}
}

// createAndStart makes a container of an image that is there, and starts it.
func (k *Kubelet) createAndStart(ctx context.Context, pod *v1.Pod, c *v1.Container, ref string, p place) (id string, err error) {
	if err := k.removeUnstarted(ctx, c, p.status); err != nil {
		return "", k.failed(pod, c, "", err, reasonCreate)
	}
	config, err := k.containerConfig(ctx, pod, c, ref, p)
	if err != nil {
		return "", k.failed(pod, c, "", err, reasonConfig)
	}
	id, err = k.cfg.Runtime.CreateContainer(ctx, p.sandboxID, config, p.sandbox)
	if err != nil {
		return "", k.failed(pod, c, id, err, reasonCreate)
	}
	k.event(pod, c, v1.EventTypeNormal, events.CreatedContainer, "Container created")
	if err := k.cfg.Runtime.StartContainer(ctx, id); err != nil {
		return "", k.failed(pod, c, id, err, reasonRun)
	}
	k.event(pod, c, v1.EventTypeNormal, events.StartedContainer, "Container started")
	return id, nil
}

// failed tells of a container that could not be started, by an event without the container's id, so that events
// of the same cause are counted together.
func (k *Kubelet) failed(pod *v1.Pod, c *v1.Container, id string, err error, reason string) error {
	var known *startError
	if !errors.As(err, &known) {
		known = &startError{reason: reason, message: status.Convert(err).Message()}
	}
	message := "Error: " + known.message
	if reason == "" {
		message = "Error: " + known.reason
	}
	if id != "" {
		message = strings.ReplaceAll(message, id, c.Name)
	}
	k.event(pod, c, v1.EventTypeWarning, events.FailedToCreateContainer, message)
	return known
}

// containerConfig is a container to be created (generateContainerConfig of pkg/kubelet/kuberuntime).
func (k *Kubelet) containerConfig(ctx context.Context, pod *v1.Pod, c *v1.Container, ref string, p place) (*cri.ContainerConfig, error) {
	if err := containerSupported(c); err != nil {
		return nil, err
	}
	user, err := k.imageUser(ctx, ref)
	if err != nil {
		return nil, err
	}
	security, err := k.security(pod, c, user)
	if err != nil {
		return nil, err
	}
	src, err := k.sources(ctx, pod, p.ips)
	if err != nil {
		return nil, err
	}
	src.File = func(volume, path, key string) (string, error) { return volumes.Variable(p.volumes[volume], path, key) }
	vars, err := src.Vars(pod, c)
	if err != nil {
		return nil, err
	}
	attempt, err := k.attempt(pod, c, p.status)
	if err != nil {
		return nil, err
	}
	mounts, err := k.mounts(pod, c, attempt, vars, p)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(k.logDir(identify(pod)), c.Name), 0o755); err != nil {
		return nil, err
	}
	command, args := kubecontainer.ExpandContainerCommandAndArgs(c, vars)
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: c.Name, Attempt: uint32(attempt)},
		Image:    &cri.ImageSpec{Image: ref, UserSpecifiedImage: c.Image},
		Command:  command, Args: args, WorkingDir: c.WorkingDir,
		Labels:  k.labels(nil, identify(pod)),
		LogPath: filepath.Join(c.Name, strconv.Itoa(attempt)+".log"),
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Mounts: mounts,
		Annotations: map[string]string{
			annotationHash:        strconv.FormatUint(kubecontainer.HashContainer(c), 16),
			annotationRestarts:    strconv.Itoa(attempt),
			annotationMessagePath: c.TerminationMessagePath,
			annotationMessageFrom: string(c.TerminationMessagePolicy),
		},
		Linux: &cri.LinuxContainerConfig{Resources: k.resources(pod, c), SecurityContext: security},
	}
	config.Labels[kubelettypes.KubernetesContainerNameLabel] = c.Name
	if err := noteResources(config, containerResources(pod, c)); err != nil {
		return nil, err
	}
	if err := target(pod, c, p.status, security.NamespaceOptions); err != nil {
		return nil, err
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		config.StopSignal = cri.Signal(cri.Signal_value[string(*c.Lifecycle.StopSignal)])
	}
	for _, v := range vars {
		config.Envs = append(config.Envs, &cri.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return config, nil
}

// target gives an ephemeral container the processes of the container that it names.
func target(pod *v1.Pod, c *v1.Container, status *kubecontainer.PodStatus, namespaces *cri.NamespaceOption) error {
	for _, e := range pod.Spec.EphemeralContainers {
		if e.Name != c.Name || e.TargetContainerName == "" {
			continue
		}
		s := status.FindContainerStatusByName(e.TargetContainerName)
		if s == nil || s.State != kubecontainer.ContainerStateRunning {
			return fmt.Errorf("target container %s of ephemeral container %s does not run", e.TargetContainerName, c.Name)
		}
		namespaces.Pid, namespaces.TargetId = cri.NamespaceMode_TARGET, s.ID.ID
	}
	return nil
}

// removeUnstarted removes the newest instance if it was made and never started: our program has ended in between. It
// is no restart, so that its number is free again.
func (k *Kubelet) removeUnstarted(ctx context.Context, c *v1.Container, status *kubecontainer.PodStatus) error {
	s := status.FindContainerStatusByName(c.Name)
	if s == nil || s.State != kubecontainer.ContainerStateCreated {
		return nil
	}
	if err := k.cfg.Runtime.RemoveContainer(ctx, s.ID.ID); err != nil {
		return fmt.Errorf("removing a container that was never started: %w", err)
	}
	return nil
}

// attempt counts a container's instances from 0. Where the runtime has none any more its logs tell.
func (k *Kubelet) attempt(pod *v1.Pod, c *v1.Container, status *kubecontainer.PodStatus) (int, error) {
	s := status.FindContainerStatusByName(c.Name)
	switch {
	case s != nil && s.State == kubecontainer.ContainerStateCreated: // removed just now
		return s.RestartCount, nil
	case s != nil:
		return s.RestartCount + 1, nil
	}
	entries, err := os.ReadDir(filepath.Join(k.logDir(identify(pod)), c.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	next := 0
	for _, entry := range entries {
		number, _, _ := strings.Cut(entry.Name(), ".log")
		if n, err := strconv.Atoi(number); err == nil && n >= next {
			next = n + 1
		}
	}
	return next, nil
}

// mounts are a container's volumes, its /etc/hosts and its termination message file.
func (k *Kubelet) mounts(pod *v1.Pod, c *v1.Container, attempt int, vars []kubecontainer.EnvVar, p place) ([]*cri.Mount, error) {
	var mounts []*cri.Mount
	ownHosts := false
	for i, m := range c.VolumeMounts {
		ownHosts = ownHosts || m.MountPath == hostsPath
		mount, err := k.mount(pod, c, i, vars, p)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mount)
	}
	if !ownHosts && (len(p.ips) > 0 || pod.Spec.HostNetwork) {
		file, err := k.writeHosts(pod, p.ips)
		if err != nil {
			return nil, fmt.Errorf("writing the pod's hosts file: %w", err)
		}
		mounts = append(mounts, &cri.Mount{HostPath: file, ContainerPath: hostsPath})
	}
	if c.TerminationMessagePath == "" {
		return mounts, nil
	}
	file := filepath.Join(k.volumes.PodDir(pod.UID), "containers", c.Name, strconv.Itoa(attempt))
	err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, nil, 0o666), os.Chmod(file, 0o666))
	if err != nil {
		return nil, fmt.Errorf("making the termination message file: %w", err)
	}
	return append(mounts, &cri.Mount{HostPath: file, ContainerPath: c.TerminationMessagePath}), nil
}

// mount is one volumeMount.
func (k *Kubelet) mount(pod *v1.Pod, c *v1.Container, i int, vars []kubecontainer.EnvVar, p place) (*cri.Mount, error) {
	m := c.VolumeMounts[i]
	volume, ok := p.volumes[m.Name]
	if !ok {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
	}
	mount := &cri.Mount{HostPath: volume.Path, ContainerPath: m.MountPath, Readonly: m.ReadOnly || volume.ReadOnly, Propagation: propagation(m)}
	if !filepath.IsAbs(mount.ContainerPath) {
		mount.ContainerPath = "/" + mount.ContainerPath
	}
	sub := m.SubPath
	var err error
	if m.SubPathExpr != "" {
		if sub, err = kubecontainer.ExpandContainerVolumeMounts(m, vars); err != nil {
			return nil, err
		}
	}
	if sub == "" {
		return mount, nil
	}
	if filepath.IsAbs(sub) {
		return nil, fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if err := volumevalidation.ValidatePathNoBacksteps(sub); err != nil {
		return nil, fmt.Errorf("unable to provision SubPath `%s`: %w", sub, err)
	}
	mount.HostPath, err = k.volumes.Subpath(pod, c.Name, i, m.Name, volume, sub)
	return mount, err
}

func propagation(m v1.VolumeMount) cri.MountPropagation {
	switch {
	case m.MountPropagation == nil:
		return cri.MountPropagation_PROPAGATION_PRIVATE
	case *m.MountPropagation == v1.MountPropagationHostToContainer:
		return cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case *m.MountPropagation == v1.MountPropagationBidirectional:
		return cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return cri.MountPropagation_PROPAGATION_PRIVATE
}

// writeHosts writes the pod's /etc/hosts and returns its path.
func (k *Kubelet) writeHosts(pod *v1.Pod, ips []string) (string, error) {
	dir := k.volumes.PodDir(pod.UID)
	file := filepath.Join(dir, "etc-hosts")
	host, domain := hostname(pod, k.cfg.ClusterDomain)
	content := hosts(ips, host, domain, pod.Spec.HostAliases)
	if pod.Spec.HostNetwork {
		var err error
		if content, err = nodeHosts(hostsPath, pod.Spec.HostAliases); err != nil {
			return "", err
		}
	}
	return file, errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(file, content, 0o644), os.Chmod(file, 0o644))
}

// sources are where environment and volumes of a pod come from.
func (k *Kubelet) sources(ctx context.Context, pod *v1.Pod, ips []string) (env.Sources, error) {
	if !k.cfg.ServicesSynced() {
		return env.Sources{}, errors.New("services have not yet been read at least once, cannot construct envvars")
	}
	services, err := k.services(pod.Namespace)
	if err != nil {
		return env.Sources{}, err
	}
	if pod.Spec.HostNetwork {
		ips = nil
		for _, ip := range k.cfg.Addresses {
			ips = append(ips, ip.String())
		}
	}
	return env.Sources{
		Services: services, ConfigMap: k.configMap(ctx), Secret: k.secret(ctx),
		Allocatable: k.capacity, HostIPs: k.cfg.Addresses, PodIPs: ips,
	}, nil
}
