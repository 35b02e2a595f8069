package run

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"minato/internal/cluster/apiserver"
	"minato/internal/cluster/kubeconfig"
)

func (u *instanceRun) startAPI() error {
	listeners, err := u.listenAPI()
	if err != nil {
		return err
	}
	u.api, err = apiserver.Start(u.ctx, apiserver.Config{
		Dir: u.inst.StateDir, Listeners: listeners, Advertise: netip.AddrPortFrom(u.advertise(), u.cfg.APIPort),
		ServiceCIDRs: u.cfg.ServiceCIDRs(), DNSAddrs: u.cfg.DNSAddrs(), ClusterDomain: u.cfg.ClusterDomain,
		NodePorts: apiserver.PortRange{First: 30000, Last: 32767}, Dial: u.dial, Log: u.opt.Log,
	})
	if err != nil {
		return err
	}
	u.pods.Store(u.api)
	u.goRun("Kubernetes API", func(context.Context) error { return u.api.Wait() })
	return u.api.Ready(u.ctx)
}

// listenAPI opens the API's port on loopback and on the host's address of the node network, never on all addresses.
// Where the port is taken and was not asked for, the next free one is taken and kept.
func (u *instanceRun) listenAPI() ([]net.Listener, error) {
	const attempts = 100
	var last error
	for range attempts {
		var ls []net.Listener
		for _, addr := range []string{"127.0.0.1", u.advertise().String()} {
			at := net.JoinHostPort(addr, strconv.Itoa(int(u.cfg.APIPort)))
			l, err := u.sockets.Listener("api/"+at, func() (net.Listener, error) {
				return new(net.ListenConfig).Listen(u.ctx, "tcp", at)
			})
			if last = err; err != nil {
				break
			}
			ls = append(ls, l)
		}
		if last == nil {
			return ls, u.inst.Save(u.cfg)
		}
		for _, l := range ls {
			l.Close()
		}
		u.cfg.APIPort++
	}
	return nil, fmt.Errorf("choose a free --api-port: %w", last)
}

// advertise is where pods and nodes reach the API.
func (u *instanceRun) advertise() netip.Addr {
	if u.cfg.Host {
		return u.cfg.Nodes[0].Addrs[0]
	}
	return u.cfg.HostAddrs()[0]
}

// dial connects the API to kubelets, from the host, and to pods and Services, from a node's namespace.
func (u *instanceRun) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil && slices.ContainsFunc(u.cfg.NodeCIDRs(), func(p netip.Prefix) bool { return p.Contains(ap.Addr()) }) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return u.reachable().netns.DialContext(ctx, network, addr)
}

// writeKubeconfig writes the instance's own kubeconfig and adds the cluster to the user's.
func (u *instanceRun) writeKubeconfig() error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(u.cfg.APIPort)))
	data, err := u.api.Kubeconfig(u.inst.KubeContext(), address)
	if err != nil {
		return err
	}
	file := u.inst.Kubeconfig()
	if err := kubeconfig.Merge(file, u.inst.KubeContext(), data, u.opt.Owner.UID, u.opt.Owner.GID); err != nil {
		return err
	}
	if u.cfg.Kubeconfig == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(u.cfg.Kubeconfig), 0o755); err != nil {
		return fmt.Errorf("make the kubeconfig's folder: %w", err)
	}
	return kubeconfig.Merge(u.cfg.Kubeconfig, u.inst.KubeContext(), data, u.opt.Owner.UID, u.opt.Owner.GID)
}
