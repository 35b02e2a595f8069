//go:build linux

package world

import (
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandboxes are the pods that run, as NAMESPACE/NAME, by the word of the container runtime.
func (w *World) Sandboxes(t testing.TB) []string {
	t.Helper()
	socket := filepath.Join("/run/minato", w.Name, "containerd", "containerd.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ready := &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}
	answer, err := cri.NewRuntimeServiceClient(conn).ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: ready})
	if err != nil {
		t.Fatalf("ask the container runtime: %v", err)
	}
	var pods []string
	for _, s := range answer.Items {
		pods = append(pods, s.Metadata.Namespace+"/"+s.Metadata.Name)
	}
	slices.Sort(pods)
	return pods
}
