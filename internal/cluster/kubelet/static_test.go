//go:build linux

package kubelet

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
)

// statically is a bench whose pods come from files. Its API gives mirror pods UIDs, as the real one does.
type statically struct {
	*bench
	t    *testing.T
	file string
	seen map[types.UID]*v1.Pod // as the watch has shown them
}

func newStatically(t *testing.T) *statically {
	b := newBench(t, simple(v1.RestartPolicyAlways), 1)
	s := &statically{bench: b, t: t, file: filepath.Join(b.cfg.StateDir, "manifests", "web.yaml"), seen: map[types.UID]*v1.Pod{}}
	serial := 0
	b.client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, apiruntime.Object, error) {
		serial++
		a.(clienttesting.CreateAction).GetObject().(*v1.Pod).UID = types.UID("mirror" + string(rune('0'+serial)))
		return false, nil, nil
	})
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.client.CoreV1().Pods(b.id.namespace).Delete(t.Context(), b.id.name, metav1.DeleteOptions{}); err != nil { // static ones alone
		t.Fatal(err)
	}
	b.start()
	b.k.node.Store(roomyNode())
	return s
}

func (s *statically) write(image string) {
	s.t.Helper()
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {terminationGracePeriodSeconds: 5, containers: [{name: c, image: '" + image + "', imagePullPolicy: IfNotPresent}]}\n"
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// settle lets the loops of watchStatic and of the watch of pods go round for a while.
func (s *statically) settle() {
	s.t.Helper()
	for range 200 {
		list, err := s.client.CoreV1().Pods("default").List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		now := map[types.UID]*v1.Pod{}
		for i := range list.Items {
			now[list.Items[i].UID] = &list.Items[i]
			s.k.show(s.ctx, &list.Items[i])
		}
		for uid, pod := range s.seen {
			if now[uid] == nil {
				s.k.gone(pod)
			}
		}
		s.seen = now
		if err := s.k.syncStatic(s.ctx); err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// mirror is the only pod of the API, nil if it has none.
func (s *statically) mirror() *v1.Pod {
	s.t.Helper()
	if len(s.seen) > 1 {
		s.t.Fatalf("the API has %d pods", len(s.seen))
	}
	for _, pod := range s.seen {
		return pod
	}
	return nil
}

func TestAStaticPodLivesWithItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatically(t)
		defer func() { s.stop() }()
		s.write("image:latest")
		s.settle()
		first := s.mirror()
		if first == nil || first.Name != "web-node1" || first.Status.Phase != v1.PodRunning || first.Annotations["kubernetes.io/config.mirror"] == "" {
			t.Fatalf("its mirror is %v", first)
		}
		if owner := first.OwnerReferences; len(owner) != 1 || owner[0].Kind != "Node" {
			t.Errorf("its mirror belongs to %v", owner)
		}
		started := len(s.runtime.Started())

		if err := s.client.CoreV1().Pods("default").Delete(t.Context(), first.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.settle()
		second := s.mirror()
		if second == nil || second.UID == first.UID || second.Status.Phase != v1.PodRunning {
			t.Errorf("after a deletion of its mirror the API has %v", second)
		}
		if n := len(s.runtime.Started()); n != started {
			t.Errorf("a deletion of its mirror started %d containers", n-started)
		}

		s.write("image") // the same in other words: another file
		s.settle()
		third := s.mirror()
		if third == nil || third.Annotations["kubernetes.io/config.mirror"] == second.Annotations["kubernetes.io/config.mirror"] || third.Status.Phase != v1.PodRunning {
			t.Errorf("after a change of its file the API has %v", third)
		}
		if n := len(s.runtime.Started()); n != started+1 {
			t.Errorf("a change of its file started %d containers, want 1", n-started)
		}

		if err := os.WriteFile(s.file, []byte("{"), 0o600); err != nil { // what cannot be read is no pod
			t.Fatal(err)
		}
		s.settle()
		if left := s.mirror(); left != nil || len(s.k.Pods()) > 0 {
			t.Errorf("without its file %d pods are still there, and in the API %v", len(s.k.Pods()), left)
		}
	})
}

// TestAnotherLifeAdoptsAStaticPod restarts the kubelet: the container runs on.
func TestAnotherLifeAdoptsAStaticPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatically(t)
		s.write("image:latest")
		s.settle()
		started, before := len(s.runtime.Started()), s.mirror()
		s.stop()
		s.build()
		s.k.node.Store(roomyNode())
		s.start()
		defer s.stop()
		s.settle()
		if n := len(s.runtime.Started()); n != started {
			t.Errorf("%d containers were started", n-started)
		}
		after := s.mirror()
		if after == nil || after.UID != before.UID || !after.Status.StartTime.Equal(before.Status.StartTime) {
			t.Errorf("its mirror was %v and is %v", before, after)
		}
	})
}
