package ingress

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// PoolName names one port of a Service as an Ingress does: by number, or by name where Port is 0.
type PoolName struct {
	Service  model.ServiceName
	Port     uint16
	PortName string
}

func (n PoolName) String() string {
	switch {
	case n.Service.Name == "":
		return "nothing"
	case n.PortName != "":
		return n.Service.String() + ":" + n.PortName
	}
	return fmt.Sprintf("%s:%d", n.Service, n.Port)
}

func (n PoolName) compare(o PoolName) int {
	return cmp.Or(n.Service.Compare(o.Service), cmp.Compare(n.Port, o.Port), cmp.Compare(n.PortName, o.PortName))
}

// Pool is the backends behind a port of a Service. It is immutable.
type Pool struct {
	Name     PoolName
	Backends []*model.Backend // that new requests may go to, by address
	LeftOut  []model.LeftOut
	Verdict  model.Verdict // of model.Select
	Problem  string        // why there can be none whatever happens to pods; empty when nothing is wrong
}

// planPool chooses backends as the dataplane of the node does for the Service's ClusterIP, with the Service's internal
// traffic policy. A headless Service works too. Of two families the first that has backends counts: they are the
// same pods.
func planPool(n PoolName, s *model.Snapshot) *Pool {
	p := &Pool{Name: n, Verdict: model.Reject}
	svc := s.Service(n.Service)
	switch {
	case n.Service.Name == "":
		p.Problem = "a backend that is no Service cannot be reached: requests to it get error 503"
		return p
	case svc == nil:
		p.Problem = fmt.Sprintf("create Service %s, or name another one: there is none of this name, and requests for it get error 503", n.Service)
		return p
	case svc.Type == model.TypeExternalName:
		p.Problem = fmt.Sprintf("give Service %s a selector: one of type ExternalName cannot be the backend of an Ingress", n.Service)
		return p
	}
	port := findPort(svc, n)
	if port == nil {
		p.Problem = fmt.Sprintf("name one of the TCP ports of Service %s (%s): there is no %s", n.Service, portList(svc), portText(n))
		return p
	}
	for _, anyAddr := range families(svc) {
		f := model.Frontend{Addr: netip.AddrPortFrom(anyAddr, port.Port), Protocol: model.TCP, Kind: model.ClusterIP, PortName: port.Name}
		sel := model.Select(svc, f, s.Node, model.Inside)
		if len(p.Backends) == 0 {
			p.Backends, p.LeftOut, p.Verdict = sel.Backends, sel.LeftOut, sel.Verdict
		}
	}
	return p
}

func findPort(svc *model.Service, n PoolName) *model.Port {
	i := slices.IndexFunc(svc.Ports, func(p model.Port) bool {
		return p.Protocol == model.TCP && (n.PortName != "" && p.Name == n.PortName || n.PortName == "" && p.Port == n.Port)
	})
	if i < 0 {
		return nil
	}
	return &svc.Ports[i]
}

func families(svc *model.Service) []netip.Addr {
	if len(svc.ClusterIPs) > 0 {
		return svc.ClusterIPs
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func portText(n PoolName) string {
	if n.PortName != "" {
		return fmt.Sprintf("port %q", n.PortName)
	}
	return fmt.Sprintf("port %d", n.Port)
}

func portList(svc *model.Service) string {
	var all []string
	for _, p := range svc.Ports {
		if p.Protocol == model.TCP {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%d %s", p.Port, p.Name)))
		}
	}
	return cmp.Or(strings.Join(all, ", "), "it has none")
}
