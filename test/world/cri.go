//go:build linux

package world

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"minato/internal/cluster/nodes"
	"minato/internal/netns"
)

// runtimeService asks the container runtime of the instance.
func (w *World) runtimeService(t testing.TB) (client cri.RuntimeServiceClient, done func()) {
	t.Helper()
	socket := filepath.Join("/run/minato", w.Name, "containerd", "containerd.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return cri.NewRuntimeServiceClient(conn), func() { conn.Close() }
}

// NodeNetns is the network namespace of a node.
func (w *World) NodeNetns(node string) netns.NS { return netns.At(nodes.NetnsPath(w.Name, node)) }

// PodNetns is the network namespace of a pod that runs.
func (w *World) PodNetns(t testing.TB, namespace, name string) netns.NS {
	t.Helper()
	runtime, done := w.runtimeService(t)
	defer done()
	list, err := runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": name},
	}})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("ask the container runtime for pod %s/%s: %d found, %v", namespace, name, len(list.GetItems()), err)
	}
	status, err := runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: list.Items[0].Id, Verbose: true})
	if err != nil {
		t.Fatalf("ask the container runtime for pod %s/%s: %v", namespace, name, err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil || info.Pid == 0 {
		t.Fatalf("process of pod %s/%s: %v in %s", namespace, name, err, status.Info["info"])
	}
	return netns.At(filepath.Join("/proc", strconv.Itoa(info.Pid), "ns", "net"))
}

// Sandboxes are the pods that run, as NAMESPACE/NAME, by the word of the container runtime.
func (w *World) Sandboxes(t testing.TB) []string {
	t.Helper()
	ready := &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}
	runtime, done := w.runtimeService(t)
	defer done()
	answer, err := runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: ready})
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
