package apiserver

import (
	"fmt"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	basecompatibility "k8s.io/component-base/compatibility"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/features"

	"minato/internal/cluster/apiserver/kubeversion"
)

// setFeatures changes what minato wants otherwise than upstream's defaults. Privileged pods are let in, as kubeadm's
// clusters do.
func setFeatures() error {
	err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{
		// KEP-4858 refuses a prefix with host bits, such as 192.168.3.0/8 in
		// loadBalancerSourceRanges, which older manifests have. The data path masks it.
		string(features.StrictIPCIDRValidation): false,
	})
	if err != nil {
		return fmt.Errorf("setting Kubernetes feature gates: %w", err)
	}
	capabilities.Setup(true, 0)
	return nil
}

// effectiveVersion is upstream's, which knows only major and minor in a program
// built without upstream's linker flags, with the whole version in /version.
type effectiveVersion struct {
	basecompatibility.EffectiveVersion
}

func newEffectiveVersion() effectiveVersion {
	return effectiveVersion{compatibility.DefaultBuildEffectiveVersion()}
}

func (v effectiveVersion) Info() *version.Info {
	info := v.EffectiveVersion.Info()
	info.GitVersion = kubeversion.Version
	info.GitCommit, info.GitTreeState = "", ""
	return info
}
