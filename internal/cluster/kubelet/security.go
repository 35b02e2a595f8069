//go:build linux

package kubelet

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/security/apparmor"
	"k8s.io/kubernetes/pkg/securitycontext"
)

// imageUser is the user that an image asks for, by number or by name.
type imageUser struct {
	uid  *int64
	name string
}

// security is a container's security context (determineEffectiveSecurityContext of pkg/kubelet/kuberuntime).
func (k *Kubelet) security(pod *v1.Pod, c *v1.Container, user imageUser) (*cri.LinuxContainerSecurityContext, error) {
	effective := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	if err := checkNonRoot(pod, c, effective, user); err != nil {
		return nil, err
	}
	seccomp, err := k.seccompProfile(pod, c)
	if err != nil {
		return nil, err
	}
	s := &cri.LinuxContainerSecurityContext{
		NamespaceOptions: k.namespaces(pod),
		Seccomp:          seccomp,
		NoNewPrivs:       securitycontext.AddNoNewPrivileges(effective),
		MaskedPaths:      securitycontext.ConvertToRuntimeMaskedPaths(effective.ProcMount),
		ReadonlyPaths:    securitycontext.ConvertToRuntimeReadonlyPaths(effective.ProcMount),
		Privileged:       isTrue(effective.Privileged),
		ReadonlyRootfs:   isTrue(effective.ReadOnlyRootFilesystem),
		SelinuxOptions:   selinux(effective.SELinuxOptions),
	}
	//lint:ignore SA1019 containerd before 2.0 reads nothing else
	s.Apparmor, s.ApparmorProfile = apparmorProfile(pod, c)
	if effective.Capabilities != nil {
		s.Capabilities = &cri.Capability{
			AddCapabilities:  capabilities(effective.Capabilities.Add),
			DropCapabilities: capabilities(effective.Capabilities.Drop),
		}
	}
	switch {
	case effective.RunAsUser != nil:
		s.RunAsUser = &cri.Int64Value{Value: *effective.RunAsUser}
	case user.uid != nil:
		s.RunAsUser = &cri.Int64Value{Value: *user.uid}
	default:
		s.RunAsUsername = user.name
	}
	if effective.RunAsGroup != nil {
		s.RunAsGroup = &cri.Int64Value{Value: *effective.RunAsGroup}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		if sc.FSGroup != nil {
			s.SupplementalGroups = append(s.SupplementalGroups, *sc.FSGroup)
		}
		s.SupplementalGroups = append(s.SupplementalGroups, sc.SupplementalGroups...)
		s.SupplementalGroupsPolicy = groupsPolicy(sc)
	}
	return s, nil
}

func groupsPolicy(sc *v1.PodSecurityContext) cri.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy == nil {
		return cri.SupplementalGroupsPolicy_Merge
	}
	return cri.SupplementalGroupsPolicy(cri.SupplementalGroupsPolicy_value[string(*sc.SupplementalGroupsPolicy)])
}

func selinux(o *v1.SELinuxOptions) *cri.SELinuxOption {
	if o == nil {
		return nil
	}
	return &cri.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

// apparmorProfile is a container's profile, in the form of today and in the one that containerd before 2.0 reads. A host
// without AppArmor has not admitted a pod that asks for one.
func apparmorProfile(pod *v1.Pod, c *v1.Container) (*cri.SecurityProfile, string) {
	profile := apparmor.GetProfile(pod, c)
	switch {
	case profile == nil:
		return nil, ""
	case profile.Type == v1.AppArmorProfileTypeRuntimeDefault:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, v1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case profile.Type == v1.AppArmorProfileTypeLocalhost && profile.LocalhostProfile != nil:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: *profile.LocalhostProfile},
			v1.DeprecatedAppArmorBetaProfileNamePrefix + *profile.LocalhostProfile
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, v1.DeprecatedAppArmorBetaProfileNameUnconfined
}

func capabilities(list []v1.Capability) []string {
	var names []string
	for _, c := range list {
		names = append(names, string(c))
	}
	return names
}

// checkNonRoot refuses a container that must not run as root and would, or might.
func checkNonRoot(pod *v1.Pod, c *v1.Container, effective *v1.SecurityContext, user imageUser) error {
	where := fmt.Sprintf("(pod: %q, container: %s)", podFormat(pod), c.Name)
	switch {
	case !isTrue(effective.RunAsNonRoot):
		return nil
	case effective.RunAsUser != nil && *effective.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case effective.RunAsUser != nil:
		return nil
	case user.uid == nil && user.name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user.name, where)
	case user.uid == nil || *user.uid == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

// podFormat names a pod in messages as upstream does (pkg/kubelet/util/format).
func podFormat(pod *v1.Pod) string { return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID) }

// seccompProfile is the container's, else the pod's, else none. Profiles of type Localhost are files in SeccompDir.
func (k *Kubelet) seccompProfile(pod *v1.Pod, c *v1.Container) (*cri.SecurityProfile, error) {
	var profile *v1.SeccompProfile
	if pod.Spec.SecurityContext != nil {
		profile = pod.Spec.SecurityContext.SeccompProfile
	}
	if c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
		profile = c.SecurityContext.SeccompProfile
	}
	switch {
	case profile == nil || profile.Type == v1.SeccompProfileTypeUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	case profile.Type == v1.SeccompProfileTypeRuntimeDefault:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, nil
	case profile.LocalhostProfile != nil:
		path := filepath.Join(k.cfg.SeccompDir, filepath.Clean("/"+*profile.LocalhostProfile))
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: path}, nil
	}
	return nil, fmt.Errorf("seccomp profile of type %q is not complete", profile.Type)
}

func isTrue(b *bool) bool { return b != nil && *b }
