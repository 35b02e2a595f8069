package kubeconfig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

const cluster = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: https://127.0.0.1:6443}}]
users: [{name: u, user: {token: secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

const foreign = `apiVersion: v1
kind: Config
clusters: [{name: work, cluster: {server: https://work}}]
users: [{name: me, user: {token: mine}}]
contexts: [{name: work, context: {cluster: work, user: me, namespace: team}}]
current-context: work
`

func merge(t *testing.T, file string) {
	t.Helper()
	if err := Merge(file, "minato", []byte(cluster), os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
}

func TestMergeKeepsWhatIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	merge(t, file)
	c, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.CurrentContext != "minato" || c.Clusters["minato"].Server != "https://127.0.0.1:6443" || c.Contexts["work"].Namespace != "team" {
		t.Errorf("merged: current %q, %v", c.CurrentContext, c.Clusters)
	}
}

func TestMergeAgainKeepsTheCurrentNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	merge(t, file)
	c, _, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	c.Contexts["minato"].Namespace = "test"
	if err := write(file, c); err != nil {
		t.Fatal(err)
	}
	merge(t, file)
	if c, _, err = load(file); err != nil || c.Contexts["minato"].Namespace != "test" {
		t.Errorf("namespace %q after merging again (%v), want test", c.Contexts["minato"].Namespace, err)
	}
}

func TestRemoveTakesOutOnlyItsOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	merge(t, file)
	if err := Remove(file, "minato"); err != nil {
		t.Fatal(err)
	}
	c, _, err := load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Contexts) != 1 || c.Contexts["work"] == nil || c.CurrentContext != "" {
		t.Errorf("after removing: %v, current %q", c.Contexts, c.CurrentContext)
	}
}

func TestRemoveDeletesAnEmptyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	merge(t, file)
	if err := Remove(file, "minato"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestABrokenFileIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("{not yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Merge(file, "minato", []byte(cluster), 0, 0); err == nil {
		t.Error("merged into a broken file")
	}
	if b, _ := os.ReadFile(file); string(b) != "{not yaml" {
		t.Errorf("the file was changed: %q", b)
	}
}
