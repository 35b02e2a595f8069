package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/uuid"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/generated/openapi"
	"k8s.io/kubernetes/pkg/routes"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"minato/internal/cluster/apiserver/metrics"
)

// resync is how often informers show everything again to those who did not ask for
// another period; it only must not be zero, which would deny it to those who did.
const resync = 12 * time.Hour

// build puts the server together, in the order of its needs: certificates, a client
// of itself, who may do what, the resources.
func (s *Server) build(ctx context.Context) (*genericapiserver.GenericAPIServer, error) {
	cfg := genericapiserver.NewConfig(legacyscheme.Codecs)
	if err := s.secure(cfg); err != nil {
		return nil, err
	}
	var err error
	if s.client, err = kubernetes.NewForConfig(s.loopback); err != nil {
		return nil, fmt.Errorf("making a client of itself: %w", err)
	}
	s.informers = informers.NewSharedInformerFactoryWithOptions(s.client, resync, informers.WithTransform(withoutManagedFields))
	if err := s.indexPods(); err != nil {
		return nil, fmt.Errorf("making the index of pods: %w", err)
	}
	key, err := s.pki.SigningKey("serviceaccounts")
	if err != nil {
		return nil, err
	}
	tokens, err := newTokens(s.cfg.ClusterDomain, key)
	if err != nil {
		return nil, err
	}
	authz, rules := authorize(s.informers)
	cfg.Authorization.Authorizer = authz
	cfg.Authentication.APIAudiences = tokens.audiences()
	cfg.Authentication.Authenticator = authenticate(cfg.SecureServing.ClientCA, tokens, s.client, s.informers)
	if cfg.AdmissionControl, err = admit(ctx, s.client, s.informers, authz); err != nil {
		return nil, err
	}
	s.describe(cfg)
	checkFeatures(ctx, s.etcd)
	if err := s.seed(ctx, cfg.RESTOptionsGetter); err != nil {
		return nil, err
	}
	return s.assemble(ctx, cfg, tokens, rules)
}

// secure sets the listeners, the serving certificate and the way to itself.
func (s *Server) secure(cfg *genericapiserver.Config) error {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.cfg.ClusterDomain}
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), s.cfg.Advertise.Addr(), firstAddr(s.cfg.ServiceCIDRs[0])}
	pair, err := s.pki.Server("apiserver", names, addrs)
	if err != nil {
		return err
	}
	cert, err := dynamiccertificates.NewStaticCertKeyContent("serving", pair.CertPEM, pair.KeyPEM)
	if err != nil {
		return fmt.Errorf("using the serving certificate: %w", err)
	}
	ca, err := dynamiccertificates.NewStaticCAContent("clients", s.pki.CertPEM())
	if err != nil {
		return fmt.Errorf("using the certificate authority: %w", err)
	}
	cfg.SecureServing = &genericapiserver.SecureServingInfo{Listener: s.listener, Cert: cert, ClientCA: ca}
	s.loopback = &rest.Config{
		Host: "https://" + s.listener.Addr().String(), QPS: -1, UserAgent: "minato",
		BearerToken:     uuid.NewString(), // known to this process only, and until it ends
		TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.CertPEM(), ServerName: "localhost"},
		ContentConfig:   rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON},
	}
	s.loopback.Dial = s.own.dial
	s.loopback.DisableCompression = true
	s.loopback.WarningHandler = rest.NoWarnings{} // of deprecations, for users
	cfg.LoopbackClientConfig = s.loopback
	return nil
}

// describe sets how the API presents itself, and where it keeps its objects.
func (s *Server) describe(cfg *genericapiserver.Config) {
	namer := apiopenapi.NewDefinitionNamer(legacyscheme.Scheme, apiextensions.Scheme, s.metrics)
	cfg.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	cfg.OpenAPIV3Config.Info.Title = "Kubernetes"
	cfg.SkipOpenAPIInstallation = true // describeAll does it
	cfg.EffectiveVersion = newEffectiveVersion()
	cfg.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	cfg.MergedResourceConfig = served()
	cfg.PublicAddress = s.cfg.Advertise.Addr().AsSlice()
	cfg.EnableProfiling = false
	cfg.LongRunningFunc = filters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	cfg.RESTOptionsGetter = storageOptions{store: s.store, scheme: legacyscheme.Scheme, codecs: legacyscheme.Codecs, mediaType: runtime.ContentTypeProtobuf}
}

func (s *Server) assemble(ctx context.Context, cfg *genericapiserver.Config, tokens tokens, rules authorizer.RuleResolver) (*genericapiserver.GenericAPIServer, error) {
	crds, err := s.customResources(cfg)
	if err != nil {
		return nil, err
	}
	server, err := cfg.Complete(s.informers).New("minato", crds.GenericAPIServer)
	if err != nil {
		return nil, fmt.Errorf("making the API server: %w", err)
	}
	server.ShutdownTimeout = shutdownTimeout
	s.crds = crds
	if err := s.install(ctx, cfg, server, tokens, rules); err != nil {
		return nil, err
	}
	keys, err := serviceaccount.NewOpenIDMetadataProvider(tokens.issuer, "", cfg.ExternalAddress, tokens.keys)
	if err != nil {
		return nil, fmt.Errorf("publishing the keys of ServiceAccount tokens: %w", err)
	}
	routes.NewOpenIDMetadataServer(keys).Install(server.Handler.GoRestfulContainer)
	s.describeAll(server, cfg.OpenAPIV3Config)
	return server, s.addHooks(server)
}

func (s *Server) install(ctx context.Context, cfg *genericapiserver.Config, server *genericapiserver.GenericAPIServer, tokens tokens, rules authorizer.RuleResolver) error {
	kubelet, err := s.kubeletClient()
	if err != nil {
		return err
	}
	c := core{
		options: cfg.RESTOptionsGetter, cfg: s.cfg, client: s.client, informers: s.informers,
		authz: cfg.Authorization.Authorizer, tokens: tokens, kubelet: kubelet, transport: dialTransport(s.cfg.Dial),
	}
	resources, err := c.build(ctx)
	if err != nil {
		return fmt.Errorf("building the core resources: %w", err)
	}
	s.clusterIPs = c.clusterIPs
	info := genericapiserver.NewDefaultAPIGroupInfo("", legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	info.VersionedResourcesStorageMap["v1"] = resources
	if err := server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &info); err != nil {
		return fmt.Errorf("installing the core resources: %w", err)
	}
	infos, err := groups(cfg, s.client, rules)
	if err != nil {
		return err
	}
	infos = append(infos, metrics.Group(s.metrics, s.usage(c.kubelets)))
	if err := server.InstallAPIGroups(infos...); err != nil {
		return fmt.Errorf("installing the API groups: %w", err)
	}
	return nil
}

// insecureTLS is for what upstream's proxies reach: any pod with any certificate.
func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
