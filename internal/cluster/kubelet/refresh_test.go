//go:build linux

package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
)

func TestAVolumeFollowsItsConfigMapAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := int32(0o644)
		pod := simple(v1.RestartPolicyAlways)
		pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "settings"}, DefaultMode: &mode,
		}}}}
		b := newBench(t, pod, 1)
		factory := informers.NewSharedInformerFactory(b.client, 0)
		b.k.cfg.ConfigMaps = factory.Core().V1().ConfigMaps().Informer()
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { b.k.followObjects(ctx) })
		factory.Start(ctx.Done())
		defer func() { cancel(); factory.Shutdown(); following.Wait() }()
		b.start()
		defer b.stop()
		b.within(10*time.Second, "waiting for its ConfigMap", func() bool {
			return b.events.count(`FailedMount: MountVolume.SetUp failed for volume "v" : configmaps "settings" not found`) > 0
		})

		maps := b.client.CoreV1().ConfigMaps("ns")
		object := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", ResourceVersion: "1"}, Data: map[string]string{"color": "blue"}}
		if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.within(100*time.Millisecond, "running", b.running)

		changed := object.DeepCopy()
		changed.ResourceVersion, changed.Data["color"] = "2", "red"
		if _, err := maps.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(b.k.volumes.PodDir("u"), "volumes", "v", "color")
		b.within(100*time.Millisecond, "red", func() bool {
			content, err := os.ReadFile(file)
			return err == nil && string(content) == "red"
		})
	})
}
