//go:build linux

package kubelet

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatAPodWouldSilentlyNotGetIsRefusedByAnEvent(t *testing.T) {
	no, gvisor, unknown, enabled := false, "gvisor", "unknown", v1.RecursiveReadOnlyEnabled
	for name, c := range map[string]struct {
		change func(*v1.Pod)
		event  string
	}{
		"a user namespace":      {func(p *v1.Pod) { p.Spec.HostUsers = &no }, "FailedCreatePodSandBox: Failed to create pod sandbox: hostUsers: false wants a user namespace"},
		"devices":               {func(p *v1.Pod) { p.Spec.ResourceClaims = []v1.PodResourceClaim{{Name: "gpu"}} }, "FailedCreatePodSandBox: Failed to create pod sandbox: resourceClaims want devices"},
		"another runtime":       {func(p *v1.Pod) { p.Spec.RuntimeClassName = &gvisor }, `FailedCreatePodSandBox: Failed to create pod sandbox: RuntimeClass "gvisor" has handler "runsc", and minato has runc alone`},
		"a runtime of no class": {func(p *v1.Pod) { p.Spec.RuntimeClassName = &unknown }, `FailedCreatePodSandBox: Failed to create pod sandbox: RuntimeClass "unknown" not found`},
		"a block device":        {func(p *v1.Pod) { p.Spec.Containers[0].VolumeDevices = []v1.VolumeDevice{{Name: "disk"}} }, `Failed: Error: volumeDevice "disk": minato has no block volumes`},
		"recursive read-only": {func(p *v1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", ReadOnly: true, RecursiveReadOnly: &enabled}}
		}, `Failed: Error: volume "v" requested recursive read-only mode, but it is not supported by the runtime`},
		"a persistent volume":      {withSource(v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}), `FailedMount: MountVolume.SetUp failed for volume "v" : persistentVolumeClaim: minato has no volumes of this kind: there are emptyDir, hostPath, configMap, secret, downwardAPI and projected ones`},
		"a volume of an image":     {withSource(v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: "x"}}), `FailedMount: MountVolume.SetUp failed for volume "v" : image: minato has no volumes of this kind`},
		"a bundle of certificates": {withSource(projection(v1.VolumeProjection{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Path: "ca"}})), `FailedMount: MountVolume.SetUp failed for volume "v" : clusterTrustBundle: minato has no volumes of this kind: there are configMap, secret, downwardAPI and serviceAccountToken ones`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pod := simple(v1.RestartPolicyAlways)
				c.change(pod)
				b := newBench(t, pod, 1)
				class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: gvisor}, Handler: "runsc"}
				if _, err := b.client.NodeV1().RuntimeClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				b.start()
				defer b.stop()
				b.within(10*time.Second, "refused", func() bool { return b.events.count(c.event) > 0 })
				if s := b.pod().Status; s.Phase != v1.PodPending {
					t.Errorf("status %+v", s)
				}
				b.delete(30)
				b.within(10*time.Second, "gone", b.gone)
			})
		})
	}
}

func withSource(source v1.VolumeSource) func(*v1.Pod) {
	return func(p *v1.Pod) { p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: source}} }
}

func projection(source v1.VolumeProjection) v1.VolumeSource {
	mode := int32(0o644)
	return v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []v1.VolumeProjection{source}}}
}
