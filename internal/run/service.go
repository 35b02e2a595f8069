package run

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"minato/internal/dns"
	"minato/internal/model"
	"minato/internal/web"
)

// service lists the URLs at which the host reaches a Service.
func (u *instanceRun) service(_ context.Context, namespace, name string) ([]string, error) {
	return serviceURLs(u.builder.Current(), model.ServiceName{Namespace: namespace, Name: name})
}

// serviceNames lists the Services of a namespace.
func (u *instanceRun) serviceNames(_ context.Context, namespace string) []string {
	names := []string{}
	for svc := range u.builder.Current().Services() {
		if svc.Name.Namespace == namespace {
			names = append(names, svc.Name.Name)
		}
	}
	return names
}

// serviceURLs has one URL for each port of a Service, in the order of its ports.
func serviceURLs(s *model.Snapshot, name model.ServiceName) ([]string, error) {
	svc := s.Service(name)
	if svc == nil {
		return nil, fmt.Errorf("%s: there is no Service %s: %w", nearNames(s, name), name, web.ErrNotFound)
	}
	var urls []string
	for _, p := range svc.Ports {
		if at := outside(s, svc, p); at.IsValid() {
			urls = append(urls, scheme(p)+"://"+at.String())
		}
	}
	if len(urls) > 0 {
		return urls, nil
	}
	switch {
	case svc.Type == model.TypeExternalName:
		return nil, fmt.Errorf("go to %s itself: Service %s is another name for it", svc.ExternalName, name)
	case svc.Headless:
		return nil, fmt.Errorf("ask for it in a pod: Service %s is headless, its name gives the addresses of its pods, which only pods and nodes reach", name)
	case len(svc.Ports) == 0:
		return nil, fmt.Errorf("give Service %s a port: it has none", name)
	}
	return nil, fmt.Errorf("make it `type: NodePort` or `type: LoadBalancer` (kubectl -n %s patch service %s -p '{\"spec\":{\"type\":\"NodePort\"}}'), or forward a port "+
		"(kubectl -n %s port-forward service/%s 8080:%d): Service %s has a ClusterIP only, which this machine does not reach",
		name.Namespace, name.Name, name.Namespace, name.Name, svc.Ports[0].Port, name)
}

// nearNames says which Service may be meant.
func nearNames(s *model.Snapshot, name model.ServiceName) string {
	for svc := range s.Services() {
		switch n := svc.Name; {
		case n.Name == name.Name:
			return fmt.Sprintf("add -n %s, where Service %s is", n.Namespace, n.Name)
		case n.Namespace == name.Namespace && dns.Similar(n.Name, name.Name):
			return fmt.Sprintf("did you mean %s?", n.Name)
		}
	}
	return "`kubectl get services -A` lists those there are"
}

// outside is the best address of a port for a client on the LAN, invalid when there is none.
func outside(s *model.Snapshot, svc *model.Service, p model.Port) netip.AddrPort {
	preference := []model.FrontendKind{model.LoadBalancer, model.ExternalIP, model.NodePort}
	frontends := slices.Clone(svc.Frontends)
	frontends = slices.DeleteFunc(frontends, func(f model.Frontend) bool {
		return f.PortName != p.Name || f.Protocol != p.Protocol || !f.Kind.External()
	})
	if len(frontends) == 0 {
		return netip.AddrPort{}
	}
	best := slices.MinFunc(frontends, func(a, b model.Frontend) int {
		return cmp.Compare(slices.Index(preference, a.Kind), slices.Index(preference, b.Kind))
	})
	if best.Kind != model.NodePort {
		return best.Addr
	}
	n := servingNode(s, svc, best)
	if n == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(n.Addr(best.Addr.Addr().Is6()), best.Addr.Port())
}

// servingNode is the first node that answers at a NodePort for the LAN: under policy Local not all do. Where none
// does, it is the first node.
func servingNode(s *model.Snapshot, svc *model.Service, f model.Frontend) *model.Node {
	var first *model.Node
	for n := range s.Nodes() {
		if !n.Addr(f.Addr.Addr().Is6()).IsValid() {
			continue
		}
		if n.Ready && model.Select(svc, f, n, model.Outside).Verdict == model.Forward {
			return n
		}
		if first == nil {
			first = n
		}
	}
	return first
}

// scheme guesses what is spoken: a Service does not say it for sure.
func scheme(p model.Port) string {
	switch {
	case p.Protocol != model.TCP:
		return p.Protocol.String()
	case p.Port == 443 || p.Name == "https" || p.AppProtocol == "https":
		return "https"
	}
	return "http"
}
