//go:build linux

// Package cni attaches pods to their nodes' networks on containerd's behalf: it installs the CNI plugin and its
// configuration, and serves what the plugin asks.
//
// One containerd serves all nodes of an instance. A sandbox's annotations name its node; the CNI capability
// io.kubernetes.cri.pod-annotations hands them to the plugin, the plugin hands them to the daemon by the control
// socket, and the daemon, which knows the nodes, does the work in process.
//
// It does not make links or choose addresses: that is an Attacher's, internal/cluster/nodes.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minato/internal/cluster/cni/plugin"
	"minato/internal/netns"
)

// Version is the CNI version of configuration and results.
const Version = "1.0.0"

// The annotations of a pod sandbox that choose its node and say that it shares the node's namespace ("true").
const (
	AnnotationNode        = plugin.AnnotationNode
	AnnotationHostNetwork = plugin.AnnotationHostNetwork
)

// Request is one CNI command for one sandbox.
type Request = plugin.Request

// Port is a port of the node that leads to the pod.
type Port = plugin.Port

// Result is a CNI result, version 1.0.0 (CNI specification, "Success").
type Result struct {
	CNIVersion string      `json:"cniVersion"`
	Interfaces []Interface `json:"interfaces,omitempty"`
	IPs        []IP        `json:"ips,omitempty"`
	Routes     []Route     `json:"routes,omitempty"`
}

// Interface is a link that was made; Sandbox is the path of its namespace, empty for the node's.
type Interface struct {
	Name    string `json:"name"`
	Mac     string `json:"mac,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
}

// IP is an address in CIDR form on the interface of that index.
type IP struct {
	Address   string `json:"address"`
	Gateway   string `json:"gateway,omitempty"`
	Interface *int   `json:"interface,omitempty"`
}

// Route is a route in the sandbox.
type Route struct {
	Dst string `json:"dst"`
	GW  string `json:"gw,omitempty"`
}

// Attacher connects sandboxes to nodes. Both methods must be idempotent: the runtime repeats them.
// Detach may be called without a Netns, and for a sandbox that was never attached.
type Attacher interface {
	Attach(context.Context, Request) (*Result, error)
	Detach(context.Context, Request) error
}

// Handler serves the plugin's requests; mount it at "POST /cni" of the control socket, which must be writable by
// root alone, because a request names a path that is entered as root.
func Handler(a Attacher, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&req); err != nil {
			http.Error(w, fmt.Sprintf("decoding the request: %v", err), http.StatusBadRequest)
			return
		}
		result, err := serve(r.Context(), a, req)
		if err != nil {
			log.Warn("cni", "command", req.Command, "pod", req.PodNamespace+"/"+req.PodName, "node", req.Node, "err", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if result == nil {
			return
		}
		result.CNIVersion = Version
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(result)
	})
}

func serve(ctx context.Context, a Attacher, req Request) (*Result, error) {
	switch req.Command {
	case "ADD":
		result, err := a.Attach(ctx, req)
		if err != nil || req.HostNetwork {
			return result, err
		}
		return result, loopbackUp(req.Netns)
	case "DEL":
		return nil, a.Detach(ctx, req)
	case "CHECK":
		return nil, nil
	}
	return nil, fmt.Errorf("unknown CNI command %q", req.Command)
}

func loopbackUp(path string) error {
	err := netns.At(path).Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return fmt.Errorf("bringing lo up in %s: %w", path, err)
	}
	return nil
}

// BindNode puts the node's network namespace in the place of a sandbox's, so that a hostNetwork pod of a virtual
// node is an ordinary sandbox in the node's namespace. The runtime unmounts it with the sandbox. It must run in
// the mount namespace of containerd. Repeating it is no error.
//
// The sandbox's path then names the node's own links: who is asked to detach it must touch nothing.
func BindNode(sandbox, node string) error {
	same, err := sameFile(sandbox, node)
	if err != nil || same {
		return err
	}
	if err := unix.Unmount(sandbox, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmounting the sandbox's namespace %s: %w", sandbox, err)
	}
	if err := unix.Mount(node, sandbox, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s over %s: %w", node, sandbox, err)
	}
	return nil
}

// IsNode reports whether a sandbox's path names the node's own namespace; a path that is gone does not.
func IsNode(sandbox, node string) (bool, error) {
	same, err := sameFile(sandbox, node)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return same, err
}

func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(x, y), nil
}
