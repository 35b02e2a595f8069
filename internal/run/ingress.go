package run

import (
	"log/slog"
	"path/filepath"
	"sync"

	"minato/internal/ingress/proxy"
	"minato/internal/source/kube"
	"minato/internal/statuswriter"
)

// startIngressWriter starts what gives Ingresses an address and tells of it. It may create objects, which an agent of
// a node may not.
func (u *instanceRun) startIngressWriter() error {
	client, err := kube.Client(u.api.Privileged())
	if err != nil {
		return err
	}
	u.ingresses = statuswriter.NewIngressWriter(statuswriter.IngressConfig{
		Client: client, Source: u.builder, Board: u.board, Log: u.opt.Log, Listening: u.proxies.listening,
	})
	u.goRun("ingress status", u.ingresses.Run)
	return nil
}

// startIngress starts the HTTP proxy of a node.
func (u *instanceRun) startIngress(a *agent, log *slog.Logger) error {
	certificate, err := proxy.DefaultCertificate(filepath.Join(u.inst.StateDir, "ingress-default.pem"))
	if err != nil {
		return err
	}
	a.ingress, err = proxy.New(proxy.Config{
		Netns: a.netns, Sockets: u.sockets, Addrs: a.node.Addrs, Default: certificate, Log: log, OnChange: u.ingresses.Wake,
	})
	if err != nil {
		return err
	}
	u.proxies.add(a.node.Name, a.ingress)
	u.goServe("ingress of "+a.node.Name, a.ingress.Run)
	return nil
}

// proxies are those of this process, by node. It is there before them, because the writer asks as soon as it runs.
type proxies struct {
	mu     sync.Mutex
	byNode map[string]*proxy.Server
}

func (p *proxies) add(node string, s *proxy.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byNode == nil {
		p.byNode = map[string]*proxy.Server{}
	}
	p.byNode[node] = s
}

func (p *proxies) listening(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.byNode[node]
	return s != nil && s.Listening()
}
