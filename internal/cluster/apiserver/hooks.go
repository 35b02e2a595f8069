package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	ipallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/ipallocator/controller"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
)

// addHooks adds what runs once when the API listens, and what must be good before it
// is ready.
func (s *Server) addHooks(server *genericapiserver.GenericAPIServer) error {
	hooks := map[string]genericapiserver.PostStartHookFunc{"storage-readiness": server.StorageReadinessHook.Hook}
	if s.newPolicy {
		hooks[rbacrest.PostStartHookName] = s.reconcile
	}
	for name, hook := range hooks {
		if err := server.AddPostStartHook(name, hook); err != nil {
			return fmt.Errorf("adding the hook %s: %w", name, err)
		}
	}
	allocates := healthz.NamedCheck("cluster-ips", func(*http.Request) error { return s.allocates() })
	if err := server.AddReadyzChecks(allocates); err != nil {
		return fmt.Errorf("adding a check: %w", err)
	}
	return nil
}

// allocates reports an error until there are addresses to give to Services, in every family.
func (s *Server) allocates() error {
	for _, ips := range s.clusterIPs {
		if _, err := ips.DryRun().AllocateNext(); err != nil {
			return err
		}
	}
	return nil
}

// repairInterval is upstream's.
const repairInterval = 3 * time.Minute

// repairClusterIPs frees, until ctx ends, addresses whose Service was never made
// because of a crash. Called before the informers start, it registers its own.
func (s *Server) repairClusterIPs(ctx context.Context) {
	networking := s.informers.Networking().V1()
	repair := ipallocatorcontroller.NewRepairIPAddress(repairInterval, s.client, s.informers.Core().V1().Services(), networking.ServiceCIDRs(), networking.IPAddresses())
	stop := make(chan struct{}) // upstream wants a channel that it could also write to
	context.AfterFunc(ctx, func() { close(stop) })
	s.running.Go(func() { repair.RunUntil(func() {}, stop) })
}
