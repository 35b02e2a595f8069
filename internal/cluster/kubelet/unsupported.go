//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// runtimeHandler is the one that containerd has here.
const runtimeHandler = "runc"

// sandboxSupported refuses what a specification wants and would silently not get.
func (k *Kubelet) sandboxSupported(ctx context.Context, pod *v1.Pod) error {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		return errors.New("hostUsers: false wants a user namespace, which minato does not make: leave the field out")
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return errors.New("resourceClaims want devices, which minato does not have")
	}
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return nil
	}
	class, err := k.cfg.Client.NodeV1().RuntimeClasses().Get(ctx, *pod.Spec.RuntimeClassName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("RuntimeClass %q not found", *pod.Spec.RuntimeClassName)
	case err != nil:
		return fmt.Errorf("RuntimeClass %q: %w", *pod.Spec.RuntimeClassName, err)
	case class.Handler != runtimeHandler:
		return fmt.Errorf("RuntimeClass %q has handler %q, and minato has %s alone", class.Name, class.Handler, runtimeHandler)
	}
	return nil
}

// containerSupported refuses what one container wants and would silently not get.
func containerSupported(c *v1.Container) error {
	if len(c.VolumeDevices) > 0 {
		return fmt.Errorf("volumeDevice %q: minato has no block volumes", c.VolumeDevices[0].Name)
	}
	for _, m := range c.VolumeMounts {
		if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == v1.RecursiveReadOnlyEnabled {
			return fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
		}
	}
	return nil
}
