//go:build linux

package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

const web = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: nginx}]}
`

func readOne(t *testing.T, dir, node string) *v1.Pod {
	t.Helper()
	pods, problems, err := Read(dir, node)
	if err != nil || len(problems) > 0 || len(pods) != 1 {
		t.Fatalf("Read: %d pods, %v, %v", len(pods), problems, err)
	}
	return pods[0]
}

func TestAFileIsAPodOfTheNode(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.yaml", web)
	write(t, dir, ".web.yaml.swp", "\x00")
	pod := readOne(t, dir, "node1")
	if pod.Name != "web-node1" || pod.Namespace != "default" || pod.Spec.NodeName != "node1" || pod.Labels["app"] != "web" {
		t.Errorf("%s/%s of %s, %v", pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Labels)
	}
	if pod.Annotations["kubernetes.io/config.hash"] != string(pod.UID) || pod.Annotations["kubernetes.io/config.source"] != "file" {
		t.Errorf("annotations %v", pod.Annotations)
	}
	if pod.Spec.Containers[0].ImagePullPolicy != v1.PullAlways || pod.Spec.RestartPolicy != v1.RestartPolicyAlways {
		t.Error("it has no defaults")
	}
	if again := readOne(t, dir, "node1"); again.UID != pod.UID {
		t.Error("the same file is another pod")
	}
	if other := readOne(t, dir, "node2"); other.UID == pod.UID {
		t.Error("two nodes have one pod")
	}
	write(t, dir, "web.yaml", strings.Replace(web, "nginx", "httpd", 1))
	if changed := readOne(t, dir, "node1"); changed.UID == pod.UID {
		t.Error("a changed file is the same pod")
	}
}

func TestABadFileIsToldAndTheOthersCount(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"no yaml":         {"{", "json"},
		"another kind":    {"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n", "core.Service"},
		"no kind":         {"metadata: {name: s}", "Kind"},
		"no name":         {strings.Replace(web, "name: web, ", "", 1), "name"},
		"invalid":         {strings.Replace(web, "name: c", "name: C_", 1), "spec.containers[0].name"},
		"needs the API":   {strings.Replace(web, "image: nginx", "image: nginx, envFrom: [{secretRef: {name: s}}]", 1), "may not reference secrets"},
		"there already":   {web, "is in"},
		"wants a account": {strings.Replace(web, "spec: {", "spec: {serviceAccountName: a, ", 1), "may not reference serviceaccounts"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "a.yaml", web)
			write(t, dir, "b.yaml", c.content)
			pods, problems, err := Read(dir, "node1")
			if err != nil || len(pods) != 1 || len(problems) != 1 {
				t.Fatalf("%d pods, %v, %v", len(pods), problems, err)
			}
			if p := problems[0]; p.File != filepath.Join(dir, "b.yaml") || !strings.Contains(p.Err.Error(), c.says) {
				t.Errorf("%s: %v, want one that says %q", p.File, p.Err, c.says)
			}
		})
	}
}

func TestNoFolderHasNoPods(t *testing.T) {
	if pods, problems, err := Read(filepath.Join(t.TempDir(), "none"), "node1"); err != nil || len(pods)+len(problems) > 0 {
		t.Errorf("%v, %v, %v", pods, problems, err)
	}
}

func TestAChangeOfTheFolderIsTold(t *testing.T) {
	dir := t.TempDir()
	changed, done := make(chan bool, 10), make(chan error)
	go func() { done <- Watch(t.Context(), dir, func() { changed <- true }) }()
	told := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: nothing was told", what)
		}
	}
	told("the beginning")
	write(t, dir, "a", "1")
	told("a new file")
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	told("a file with another name")
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	told("no file")
}
