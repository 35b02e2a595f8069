// Package kubeversion gives this program the version number of the Kubernetes
// it is built from, so that `kubectl version` works from a plain `go build`.
// It does not know minato's own version.
package kubeversion

import (
	"fmt"
	_ "unsafe" // for go:linkname

	"k8s.io/component-base/version"
)

// Version is the release of the k8s.io/kubernetes module in go.mod.
const Version = "v1.36.3"

// gitVersion is the variable which upstream's release scripts set with -ldflags -X.
// SetDynamicVersion alone refuses any version that differs from it.
//
//go:linkname gitVersion k8s.io/component-base/version.gitVersion
var gitVersion string

// Set makes k8s.io/component-base/version report Version in the whole process:
// in the API's /version, in kubectl's client version and in user agents. Call it
// once, before the API, a component or kubectl starts.
func Set() error {
	gitVersion = Version
	if err := version.SetDynamicVersion(Version); err != nil {
		return fmt.Errorf("setting the Kubernetes version: %w", err)
	}
	return nil
}
