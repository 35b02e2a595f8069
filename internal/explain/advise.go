package explain

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/dns"
	"minato/internal/model"
)

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// adviseBackends says why a Service, or the port of it that is f's, has no backend.
func (t *trace) adviseBackends(s *model.Service, f *model.Frontend) {
	var all, ofPort, ofFamily int
	for b := range s.AllBackends() {
		all++
		if f == nil || b.PortName == f.PortName && b.Protocol == f.Protocol {
			ofPort++
			if f == nil || b.Addr.Addr().Is6() == f.Addr.Addr().Is6() {
				ofFamily++
			}
		}
	}
	switch {
	case s.Selector == "" && all == 0:
		t.advise("it has no selector, so nothing makes endpoints for it: write an EndpointSlice with the label kubernetes.io/service-name: %s", s.Name.Name)
	case s.Selector == "" && ofPort == 0:
		t.advise("its endpoints have ports named %s, and this port of the Service is named %q: the names must be the same", portNames(s), t.r.Port)
	case ofPort > 0 && ofFamily == 0:
		t.advise("its endpoints are of the other IP family, and nothing translates: write an EndpointSlice of addressType %s", familyOf(f.Addr.Addr()))
	case ofPort > 0 && s.Selector == "":
		t.advise("its endpoints are there and not ready: their EndpointSlice says so")
	case ofPort > 0:
		t.advise("its pods are there and not ready: `kubectl -n %s describe pods -l %s` says why", s.Name.Namespace, s.Selector)
	case all > 0:
		if !t.adviseTargetPort(s, f) {
			t.advise("its endpoints have ports named %s, and none for port %q: its targetPort must be one that containers of the pods have", portNames(s), t.r.Port)
		}
	default:
		t.adviseSelector(s, f)
	}
}

func familyOf(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}

func portNames(s *model.Service) string {
	names := map[string]bool{}
	for b := range s.AllBackends() {
		names[fmt.Sprintf("%q", b.PortName)] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// adviseSelector says which pods a selector that gives no endpoint misses.
func (t *trace) adviseSelector(s *model.Service, f *model.Frontend) {
	if t.Pods == nil {
		t.advise("no pod matches its selector: compare `kubectl -n %s get pods --show-labels` with %s", s.Name.Namespace, s.Selector)
		return
	}
	pods := t.Pods.Match(s.Selector)
	here := slices.DeleteFunc(slices.Clone(pods), func(p model.Pod) bool { return p.Namespace != s.Name.Namespace })
	switch {
	case len(here) > 0:
		t.adviseNotYet(s, here, f)
		return
	case len(pods) > 0:
		t.advise("selector %s matches no pod of namespace %s; %s in namespace %s would do: a Service selects pods of its own namespace only",
			s.Selector, s.Name.Namespace, plural(len(pods), "pod"), pods[0].Namespace)
		return
	}
	near := nearMisses(s.Selector, t.Pods.In(s.Name.Namespace))
	if len(near) == 0 {
		t.advise("selector %s matches no pod, and none is similar: `kubectl -n %s get pods --show-labels` lists them", s.Selector, s.Name.Namespace)
		return
	}
	t.advise("selector %s matches no pod; %s: change the selector, or the labels", s.Selector, strings.Join(near, ", "))
}

// adviseNotYet: the pods are there, and still there is no endpoint.
func (t *trace) adviseNotYet(s *model.Service, pods []model.Pod, f *model.Frontend) {
	phases := map[string]int{}
	for _, p := range pods {
		phases[p.Phase]++
	}
	if phases["Running"] > 0 && f != nil && t.adviseTargetPort(s, f) {
		return
	}
	var parts []string
	for _, phase := range slices.Sorted(maps.Keys(phases)) {
		parts = append(parts, fmt.Sprintf("%d %s", phases[phase], phase))
	}
	t.advise("selector %s matches %s (%s), of which none is an endpoint: `kubectl -n %s describe pods -l %s` says why",
		s.Selector, plural(len(pods), "pod"), strings.Join(parts, ", "), s.Name.Namespace, s.Selector)
}

// nearMisses counts the pods that all requirements of a selector but one fit, by what they have instead.
func nearMisses(selector string, pods []model.Pod) []string {
	requirements := strings.Split(selector, ",")
	counts := map[string]int{}
	for _, p := range pods {
		if has := instead(requirements, p.Labels); has != "" {
			counts[has]++
		}
	}
	kinds := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], strings.Compare(a, b)) })
	var near []string
	for _, k := range kinds[:min(len(kinds), 3)] {
		verb := "have"
		if counts[k] == 1 {
			verb = "has"
		}
		near = append(near, fmt.Sprintf("%s %s %s", plural(counts[k], "pod"), verb, k))
	}
	return near
}

// instead is what labels have in the place of the one requirement that they do not fit, empty when more than one does
// not fit, or when there is nothing similar in its place.
func instead(requirements []string, labels map[string]string) string {
	missed := ""
	for _, r := range requirements {
		k, v, _ := strings.Cut(r, "=")
		switch have, ok := labels[k]; {
		case ok && have == v:
		case missed != "":
			return ""
		default:
			missed = r
		}
	}
	k, v, _ := strings.Cut(missed, "=")
	if have, ok := labels[k]; ok && (len(requirements) > 1 || dns.Similar(have, v)) {
		return k + "=" + have
	}
	for _, other := range slices.Sorted(maps.Keys(labels)) {
		if labels[other] == v || dns.Similar(other, k) && dns.Similar(labels[other], v) {
			return other + "=" + labels[other]
		}
	}
	if len(requirements) > 1 {
		return "no label " + k
	}
	return ""
}

// adviseTargetPort says that no container of the pods has the named targetPort. It is false when that is not so, or
// not known.
func (t *trace) adviseTargetPort(s *model.Service, f *model.Frontend) bool {
	p := portOf(s, f)
	if t.Pods == nil || p == nil || p.TargetPort == "" || number(p.TargetPort) != 0 {
		return false
	}
	ports := t.containerPorts(s)
	if slices.ContainsFunc(ports, func(c model.Port) bool { return c.Name == p.TargetPort && c.Protocol == p.Protocol }) {
		return false
	}
	t.advise("targetPort %q is the name of no %s port of its pods' containers: they have %s", p.TargetPort, strings.ToUpper(p.Protocol.String()), containerPortList(ports))
	return true
}

// targetPort notes a number that no container declares. Declaring is not needed, so that is a hint only.
func (t *trace) targetPort(s *model.Service, f model.Frontend) {
	p := portOf(s, &f)
	if t.Pods == nil || p == nil || s.Selector == "" || len(t.r.Backends) == 0 || number(p.TargetPort) == 0 {
		return
	}
	ports := t.containerPorts(s)
	declared := func(c model.Port) bool { return c.Port == number(p.TargetPort) && c.Protocol == p.Protocol }
	if len(ports) > 0 && !slices.ContainsFunc(ports, declared) {
		t.notef("no container of its pods declares port %s/%s (targetPort): they have %s; if nothing listens there, the pod itself refuses the connection",
			p.TargetPort, p.Protocol, containerPortList(ports))
	}
}

func portOf(s *model.Service, f *model.Frontend) *model.Port {
	if f == nil {
		return nil
	}
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Name == f.PortName && p.Protocol == f.Protocol {
			return p
		}
	}
	return nil
}

// containerPorts are the distinct ports that the containers of a Service's pods declare.
func (t *trace) containerPorts(s *model.Service) []model.Port {
	var all []model.Port
	for _, p := range t.Pods.Match(s.Selector) {
		for _, c := range p.Ports {
			if p.Namespace == s.Name.Namespace && !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

func containerPortList(ports []model.Port) string {
	if len(ports) == 0 {
		return "no ports"
	}
	return portList(&model.Service{Ports: ports})
}

// adviseOutside names the addresses at which a Service can be reached from outside.
func (t *trace) adviseOutside(s *model.Service) {
	for _, f := range s.Frontends {
		switch f.Kind {
		case model.NodePort:
			t.advise("from outside it answers at port %d/%s of every node", f.Addr.Port(), f.Protocol)
		case model.LoadBalancer, model.ExternalIP:
			t.advise("from outside it answers at %s/%s", f.Addr, f.Protocol)
		}
	}
	if len(t.r.Advice) == 0 {
		t.advise("to let others in, make it `type: NodePort` or `type: LoadBalancer`")
	}
}
