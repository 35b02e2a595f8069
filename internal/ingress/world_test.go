package ingress

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"minato/internal/model"
)

// newIngress reads an Ingress from lines: "HOST PREFIX|EXACT PATH SERVICE", or "default SERVICE", or "tls HOST ...".
// An empty host is written (any). Ingresses are as old as the first letters of their names.
func newIngress(t testing.TB, name string, lines ...string) *model.Ingress {
	t.Helper()
	i := &model.Ingress{
		Name: model.IngressName{Namespace: "default", Name: name}, Served: true, Class: "minato",
		Created: time.Unix(int64(name[0]), 0),
	}
	for _, l := range lines {
		f := strings.Fields(l)
		switch {
		case f[0] == "default":
			b := port80(f[1])
			i.Default = &b
		case f[0] == "tls":
			i.TLS = append(i.TLS, model.IngressTLS{Hosts: f[1:]})
		case len(f) == 1:
			i.Rules = append(i.Rules, model.IngressRule{Host: host(f[0])})
		case len(f) == 4:
			kind := map[string]model.PathType{"Prefix": model.PathPrefix, "Exact": model.PathExact}[f[1]]
			p := model.IngressPath{Path: f[2], Type: kind, Backend: port80(f[3])}
			i.Rules = append(i.Rules, model.IngressRule{Host: host(f[0]), Paths: []model.IngressPath{p}})
		default:
			t.Fatalf("cannot read %q", l)
		}
	}
	return i
}

func port80(service string) model.IngressBackend {
	return model.IngressBackend{Service: service, Port: 80}
}

func host(s string) string {
	if s == "(any)" {
		return ""
	}
	return s
}

// newService has port 80 named http, and one ready backend for each address.
func newService(name string, addrs ...string) *model.Service {
	s := &model.Service{
		Name: model.ServiceName{Namespace: "default", Name: name}, Proxied: true,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.9")},
		Ports:      []model.Port{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
	sl := &model.BackendSlice{Name: name}
	for _, a := range addrs {
		sl.Backends = append(sl.Backends, model.Backend{
			Addr: netip.AddrPortFrom(netip.MustParseAddr(a), 8080), Protocol: model.TCP, PortName: "http", Ready: true, Serving: true, NodeName: "node1",
		})
	}
	s.Slices = []*model.BackendSlice{sl}
	return s
}

// snapshot holds the Ingresses and every Service that they name.
func snapshot(all ...*model.Ingress) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		e.SetComplete()
		e.SetIngressesKnown()
		for _, i := range all {
			e.SetIngress(i)
			for _, b := range backends(i) {
				e.SetService(newService(b.Service, "10.244.1.5"))
			}
		}
	})
}

func backends(i *model.Ingress) (all []model.IngressBackend) {
	if i.Default != nil {
		all = append(all, *i.Default)
	}
	for _, r := range i.Rules {
		for _, p := range r.Paths {
			all = append(all, p.Backend)
		}
	}
	return all
}

// service is where a request goes, "404" or "400".
func service(p *Plan, host, path string) string {
	parsed, err := ParsePath(path)
	if err != nil {
		return "400"
	}
	r := p.Lookup(Hostname(host), parsed.Decoded)
	if r == nil {
		return "404"
	}
	return r.Pool.Service.Name
}

func text(p *Plan) string {
	var b strings.Builder
	p.WriteText(&b)
	return b.String()
}

func problems(p *Plan, name string) string {
	return strings.Join(p.Problems(model.IngressName{Namespace: "default", Name: name}), "; ")
}

func certificate(names ...string) *model.Certificate {
	return &model.Certificate{Names: names, Chain: [][]byte{[]byte(fmt.Sprint(names))}}
}
