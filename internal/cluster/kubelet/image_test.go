//go:build linux

package kubelet_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/vishvananda/netlink"

	"minato/internal/cluster/cni"
	"minato/internal/cluster/containerd/containerdtest"
	"minato/internal/netns"
)

var buildPod = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "pod-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/pod", "./testdata/pod")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the pods' program: %w: %s", err, out)
	}
	return os.ReadFile(dir + "/pod")
})

func loadPodImage(t *testing.T, w *containerdtest.World) {
	t.Helper()
	program, err := buildPod()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range []tar.Header{{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, {Name: "pod", Mode: 0o755, Size: int64(len(program))}} {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tw.Write(program); err != nil {
		t.Fatal(err)
	}
	tw.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", runtime.GOARCH, imagev1.Config{Entrypoint: []string{"/pod"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(podImage)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pod.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.Load(t.Context(), file); err != nil {
		t.Fatal(err)
	}
}

// links is an Attacher that gives each pod a veth into the node's namespace and an address of 10.9.0.0/24.
type links struct {
	node netns.NS
	mu   sync.Mutex
	next byte
}

func (w *world) serveCNI(socket string, node netns.NS) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		w.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /cni", cni.Handler(&links{node: node, next: 1}, w.Log))
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	w.t.Cleanup(func() { server.Close() })
}

func (l *links) Attach(_ context.Context, r cni.Request) (*cni.Result, error) {
	if r.Node != nodeName {
		return nil, fmt.Errorf("asked for node %q", r.Node)
	}
	index := 0
	if r.HostNetwork {
		return &cni.Result{Interfaces: []cni.Interface{{Name: r.IfName, Sandbox: r.Netns}}, IPs: []cni.IP{{Address: "127.0.0.1/32", Interface: &index}}},
			cni.BindNode(r.Netns, l.node.Path())
	}
	l.mu.Lock()
	l.next++
	ip := net.IPv4(10, 9, 0, l.next)
	l.mu.Unlock()
	link := "v" + r.ContainerID[:8]
	peer := "p" + r.ContainerID[:8]
	sandbox, err := os.Open(r.Netns)
	if err != nil {
		return nil, err
	}
	defer sandbox.Close()
	err = l.node.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: peer, PeerNamespace: netlink.NsFd(int(sandbox.Fd()))}
		return errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth),
			netlink.AddrAdd(veth, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 1, 1), Mask: net.CIDRMask(32, 32)}}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}))
	})
	if err != nil {
		return nil, err
	}
	err = netns.At(r.Netns).Do(func() error {
		eth, err := netlink.LinkByName(peer)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetName(eth, r.IfName), netlink.LinkSetUp(eth),
			netlink.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 9, 1, 1), Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}))
	})
	return &cni.Result{
		Interfaces: []cni.Interface{{Name: r.IfName, Sandbox: r.Netns}},
		IPs:        []cni.IP{{Address: ip.String() + "/32", Interface: &index}},
	}, err
}

func (l *links) Detach(context.Context, cni.Request) error { return nil }
