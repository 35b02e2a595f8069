package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"minato/internal/cluster/cni"
	"minato/internal/cluster/nodes"
	"minato/internal/drain"
	"minato/internal/model"
)

// attacher speaks CNI for the network of the nodes.
type attacher struct{ network *nodes.Network }

// Attach answers an ADD.
func (a attacher) Attach(ctx context.Context, r cni.Request) (*cni.Result, error) {
	req := attachRequest(r)
	var err error
	if req.Ports, err = portMappings(r.Ports); err != nil {
		return nil, err
	}
	got, err := a.network.Attach(ctx, req)
	if err != nil {
		return nil, err
	}
	name := got.IfName
	if name == "" {
		name = r.IfName // hostNetwork: CNI wants an interface for its addresses
	}
	result := &cni.Result{Interfaces: []cni.Interface{{Name: name, Mac: got.MAC, Sandbox: r.Netns}}}
	first := 0
	for i, addr := range got.Addrs {
		ip := cni.IP{Address: addr.String(), Interface: &first}
		if i < len(got.Gateways) {
			ip.Gateway = got.Gateways[i].String()
			result.Routes = append(result.Routes, cni.Route{Dst: anywhere(addr.Addr()), GW: ip.Gateway})
		}
		result.IPs = append(result.IPs, ip)
	}
	return result, nil
}

// Detach answers a DEL.
func (a attacher) Detach(ctx context.Context, r cni.Request) error {
	return a.network.Detach(ctx, attachRequest(r))
}

func attachRequest(r cni.Request) nodes.AttachRequest {
	return nodes.AttachRequest{Node: r.Node, Netns: r.Netns, ContainerID: r.ContainerID, IfName: r.IfName, HostNetwork: r.HostNetwork}
}

func portMappings(ports []cni.Port) (all []nodes.PortMapping, err error) {
	protocols := map[string]uint8{"tcp": uint8(model.TCP), "udp": uint8(model.UDP), "sctp": uint8(model.SCTP)}
	for _, p := range ports {
		m := nodes.PortMapping{Protocol: protocols[p.Protocol], HostPort: p.HostPort, PodPort: p.ContainerPort}
		if m.Protocol == 0 {
			return nil, fmt.Errorf("hostPort %d: unknown protocol %q", p.HostPort, p.Protocol)
		}
		if p.HostIP != "" {
			if m.HostAddr, err = netip.ParseAddr(p.HostIP); err != nil {
				return nil, fmt.Errorf("hostPort %d: %w", p.HostPort, err)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

func anywhere(a netip.Addr) string {
	if a.Is6() {
		return "::/0"
	}
	return "0.0.0.0/0"
}

// listenRoot opens a unix socket for root alone.
func listenRoot(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("clear the socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the socket to others: %w", err)
	}
	return l, nil
}

// serveHTTP serves until ctx ends and then waits a moment for what is under way.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	const grace = 2 * time.Second
	return drain.Until(ctx, &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, l, grace)
}
