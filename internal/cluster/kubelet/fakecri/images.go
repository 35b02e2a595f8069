package fakecri

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images is a fake image service: what is in Registry can be pulled.
type Images struct {
	internalapi.ImageManagerService

	mu       sync.Mutex
	registry map[string]bool
	present  map[string]bool
	pulls    int
}

// NewImages has images that can be pulled and are not there yet.
func NewImages(registry ...string) *Images {
	i := &Images{registry: make(map[string]bool), present: make(map[string]bool)}
	i.Publish(registry...)
	return i
}

// Publish makes images available for pulls.
func (i *Images) Publish(names ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range names {
		i.registry[name] = true
	}
}

// Pulls counts the pulls, failed ones too.
func (i *Images) Pulls() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pulls
}

// ImageStatus has no Image for what is not there.
func (i *Images) ImageStatus(_ context.Context, spec *cri.ImageSpec, _ bool) (*cri.ImageStatusResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.present[spec.Image] {
		return &cri.ImageStatusResponse{}, nil
	}
	return &cri.ImageStatusResponse{Image: &cri.Image{Id: spec.Image, Size: 1}}, nil
}

// PullImage fetches from the registry.
func (i *Images) PullImage(_ context.Context, spec *cri.ImageSpec, _ *cri.AuthConfig, _ *cri.PodSandboxConfig) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pulls++
	if !i.registry[spec.Image] {
		return "", status.Errorf(codes.NotFound, "%s: not found", spec.Image)
	}
	i.present[spec.Image] = true
	return spec.Image, nil
}
