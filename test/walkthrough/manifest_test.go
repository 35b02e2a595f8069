//go:build linux

package walkthrough

import (
	"fmt"
	"path/filepath"
	"testing"
)

// manifest applies what stands at the article's address, or as much of it as a test needs.
func (e ways) manifest(t *testing.T) {
	file, err := filepath.Abs("testdata/metallb.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := e.w.Shell("/", "kubectl apply -f "+file)
	t.Cleanup(func() {
		e.w.Kubectl(t, "delete", "clusterrole,role,rolebinding,serviceaccount", "-n", "metallb-system", "-l", "app=metallb")
	})
	for _, kind := range []string{"DaemonSet", "Deployment"} {
		wantText(t, r.Stderr, fmt.Sprintf("no matches for kind %q in version \"apps/v1beta2\"", kind))
	}
	for _, object := range []string{"serviceaccount/controller", "clusterrole.rbac.authorization.k8s.io/metallb-system:controller", "role.rbac.authorization.k8s.io/config-watcher"} {
		wantText(t, r.Stdout, object+" ")
	}
	if out := e.w.Kubectl(t, "get", "pods", "-n", "metallb-system", "-o", "name"); out != "" {
		t.Errorf("pods that were not to be: %s", out)
	}
}
