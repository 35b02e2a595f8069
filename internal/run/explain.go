package run

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"minato/internal/dataplane/nftables"
	"minato/internal/dataplane/nftables/kernel"
	"minato/internal/explain"
	"minato/internal/source/kube"
	"minato/internal/statuswriter"
	"minato/internal/web"
)

// explain says where a connection goes, from the newest snapshot, what the API says of pods, and the nodes' kernels.
func (u *instanceRun) explain(_ context.Context, dest string, q web.Query, pods *kube.Pods, w io.Writer) (exit int, err error) {
	r, err := explain.Explain(u.world(pods), explain.Query{To: dest, From: q.From, Protocol: q.Protocol, Namespace: q.Namespace})
	if err = errors.Join(pods.Err(), err); err != nil {
		return 0, err
	}
	if q.Output != web.Text {
		return r.Verdict.ExitCode(), encode(w, q.Output, r)
	}
	return r.Verdict.ExitCode(), r.WriteText(w)
}

func (u *instanceRun) world(pods explain.Pods) explain.World {
	w := explain.World{
		Snapshot: u.builder.Current(), Names: u.agents[0].table.View(), Zone: u.zone(), NodeSearch: searchPath(resolvConf),
		ServiceCIDRs: u.cfg.ServiceCIDRs(), Except: except(), Front: statuswriter.Front, Pods: pods, Held: u.held,
	}
	if !u.cfg.Host { // there is a machine between nodes and the world: this one
		w.LAN = u.cfg.HostAddrs()
		w.Unrouted = append(u.cfg.ServiceCIDRs(), u.cfg.PodCIDRs()...)
	}
	return w
}

// held reads a node's kernel.
func (u *instanceRun) held(node string, f explain.Frontend, client netip.Addr) (explain.Held, error) {
	a, err := u.agentOf(node)
	if err != nil {
		return explain.Held{}, err
	}
	key := nftables.Key{Scope: f.Scope, Addr: f.Addr.Addr(), Protocol: f.Protocol, Port: f.Addr.Port()}
	answer, pin, found, err := a.dataplane.Read(key, client)
	return explain.Held{
		Held: heldBy(answer, found), Pin: explain.Pin{Backend: pin.Endpoint, Left: pin.Left}, Counted: explain.Counted(answer.Connections),
	}, err
}

func heldBy(a kernel.Answer, found bool) nftables.Held {
	return nftables.Held{Found: found, Verdict: a.Verdict, Affinity: a.Affinity, Endpoints: a.Endpoints, Masquerade: a.Masquerade}
}

// searchPath is what a resolv.conf has of it: the last "search" or "domain" counts (resolv.conf(5)). Without the file
// it is empty.
func searchPath(file string) (path []string) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		switch f := strings.Fields(line); {
		case len(f) > 1 && (f[0] == "search" || f[0] == "domain"):
			path = slices.DeleteFunc(f[1:], func(s string) bool { return s == "." })
		}
	}
	return path
}
