package apiserver

import (
	"context"
	"fmt"
	"io"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/plugin/pkg/admission/defaulttolerationseconds"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/kubernetes/plugin/pkg/admission/network/defaultingressclass"
	"k8s.io/kubernetes/plugin/pkg/admission/priority"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
)

// admit builds the admission chain: the part of upstream's default plugins that
// pods, Services and Ingresses depend on, in upstream's order.
func admit(ctx context.Context, client kubernetes.Interface, inf informers.SharedInformerFactory, authz authorizer.Authorizer) (admission.Interface, error) {
	plugins := admission.NewPlugins()
	for _, register := range []func(*admission.Plugins){
		lifecycle.Register, limitranger.Register, serviceaccount.Register,
		priority.Register, defaulttolerationseconds.Register, defaultingressclass.Register,
	} {
		register(plugins)
	}
	names := []string{
		lifecycle.PluginName, limitranger.PluginName, serviceaccount.PluginName,
		priority.PluginName, defaulttolerationseconds.PluginName, defaultingressclass.PluginName,
	}
	init := initializer.New(client, nil, inf, authz, utilfeature.DefaultFeatureGate, newEffectiveVersion(), ctx.Done(), nil)
	chain, err := plugins.NewFromPlugins(names, noConfig{}, init, nil)
	if err != nil {
		return nil, fmt.Errorf("building the admission chain: %w", err)
	}
	return chain, nil
}

// noConfig leaves every plugin at its defaults.
type noConfig struct{}

func (noConfig) ConfigFor(string) (io.Reader, error) { return nil, nil }
