package apiserver

import (
	"fmt"
	"net/http"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	ipallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/ipallocator/controller"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
)

// repairInterval is upstream's for the check of ClusterIPs.
const repairInterval = 3 * time.Minute

// addHooks adds what runs inside the API server once it listens, and what must be
// good before it is ready.
func (s *Server) addHooks(server *genericapiserver.GenericAPIServer) error {
	allocates := healthz.NamedCheck("cluster-ips", func(*http.Request) error {
		_, err := s.clusterIPs.DryRun().AllocateNext()
		return err
	})
	if err := server.AddReadyzChecks(allocates); err != nil {
		return fmt.Errorf("adding a check: %w", err)
	}
	// Frees addresses whose Service was never made because of a crash.
	repair := ipallocatorcontroller.NewRepairIPAddress(repairInterval, s.client,
		s.informers.Core().V1().Services(), s.informers.Networking().V1().ServiceCIDRs(), s.informers.Networking().V1().IPAddresses())
	hooks := map[string]genericapiserver.PostStartHookFunc{
		"storage-readiness": server.StorageReadinessHook.Hook,
		"repair-cluster-ips": func(h genericapiserver.PostStartHookContext) error {
			stop := make(chan struct{})
			s.running.Go(func() { <-h.Done(); close(stop) })
			s.running.Go(func() { repair.RunUntil(func() {}, stop) })
			return nil
		},
	}
	if s.newPolicy {
		hooks[rbacrest.PostStartHookName] = s.reconcile
	}
	for name, hook := range hooks {
		if err := server.AddPostStartHook(name, hook); err != nil {
			return fmt.Errorf("adding the hook %s: %w", name, err)
		}
	}
	return nil
}
