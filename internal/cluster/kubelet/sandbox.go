//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"path"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	runtimeutil "k8s.io/kubernetes/pkg/kubelet/kuberuntime/util"

	"minato/internal/cluster/cni"
)

// sandboxConfig is the sandbox of a pod (generatePodSandboxConfig of pkg/kubelet/kuberuntime).
func (k *Kubelet) sandboxConfig(ctx context.Context, pod *v1.Pod, attempt uint32) (*cri.PodSandboxConfig, error) {
	if err := k.sandboxSupported(ctx, pod); err != nil {
		return nil, err
	}
	dns, err := k.dns.GetPodDNS(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("DNS of the pod: %w", err)
	}
	host, domain := hostname(pod, k.cfg.ClusterDomain)
	uts, err := utsName(pod, host, domain)
	if err != nil {
		return nil, err
	}
	config := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Hostname:     uts,
		LogDirectory: k.logDir(identify(pod)),
		DnsConfig:    dns,
		Labels:       k.labels(pod.Labels, identify(pod)),
		Annotations:  map[string]string{},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    k.cgroup(identify(pod)),
			Sysctls:         map[string]string{},
			SecurityContext: k.sandboxSecurity(pod),
		},
	}
	maps.Copy(config.Annotations, pod.Annotations)
	config.Annotations[cni.AnnotationNode] = k.cfg.NodeName // last: a pod must not choose another node's network
	delete(config.Annotations, cni.AnnotationHostNetwork)
	config.PortMappings = portMappings(pod)
	if pod.Spec.HostNetwork {
		config.Hostname = k.cfg.NodeName
		if !k.cfg.Netns.IsHost() {
			config.Annotations[cni.AnnotationHostNetwork] = "true"
		}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, sysctl := range sc.Sysctls {
			config.Linux.Sysctls[sysctl.Name] = sysctl.Value
		}
	}
	return config, nil
}

// portMappings are the ports of the node that lead to the pod. In the node's namespace they are the pod's own.
func portMappings(pod *v1.Pod) (all []*cri.PortMapping) {
	if pod.Spec.HostNetwork {
		return nil
	}
	for i := range pod.Spec.Containers {
		all = appendPorts(all, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; podutil.IsRestartableInitContainer(c) {
			all = appendPorts(all, c)
		}
	}
	return all
}

func appendPorts(all []*cri.PortMapping, c *v1.Container) []*cri.PortMapping {
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			protocol := cri.Protocol(cri.Protocol_value[string(p.Protocol)])
			all = append(all, &cri.PortMapping{Protocol: protocol, ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP})
		}
	}
	return all
}

// namespaces are those that containers share. On a virtual node a hostNetwork pod is an ordinary one to the
// runtime: CNI puts the node's namespace in the place of its own.
func (k *Kubelet) namespaces(pod *v1.Pod) *cri.NamespaceOption {
	network := cri.NamespaceMode_POD
	if pod.Spec.HostNetwork && k.cfg.Netns.IsHost() {
		network = cri.NamespaceMode_NODE
	}
	return &cri.NamespaceOption{
		Network: network, Ipc: runtimeutil.IpcNamespaceForPod(pod), Pid: runtimeutil.PidNamespaceForPod(pod),
	}
}

// sandboxSecurity confines the pause container.
func (k *Kubelet) sandboxSecurity(pod *v1.Pod) *cri.LinuxSandboxSecurityContext {
	security := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: k.namespaces(pod),
		Privileged:       kubecontainer.HasPrivilegedContainer(pod),
		Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return security
	}
	if sc.RunAsUser != nil {
		security.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
	}
	if sc.RunAsGroup != nil {
		security.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
	}
	if sc.FSGroup != nil {
		security.SupplementalGroups = append(security.SupplementalGroups, *sc.FSGroup)
	}
	security.SupplementalGroups = append(security.SupplementalGroups, sc.SupplementalGroups...)
	security.SupplementalGroupsPolicy = groupsPolicy(sc)
	security.SelinuxOptions = selinux(sc.SELinuxOptions)
	return security
}

// labels are by which sandboxes and containers are found again.
func (k *Kubelet) labels(pod map[string]string, id identity) map[string]string {
	labels := maps.Clone(pod)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[kubelettypes.KubernetesPodNameLabel] = id.name
	labels[kubelettypes.KubernetesPodNamespaceLabel] = id.namespace
	labels[kubelettypes.KubernetesPodUIDLabel] = string(id.uid)
	labels[labelNode] = k.cfg.NodeName
	return labels
}

func (k *Kubelet) cgroup(id identity) string {
	return path.Join(k.cfg.CgroupRoot, "pod"+string(id.uid))
}

func (k *Kubelet) logDir(id identity) string {
	return filepath.Join(k.cfg.PodLogsDir, fmt.Sprintf("%s_%s_%s", id.namespace, id.name, id.uid))
}
