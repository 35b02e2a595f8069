package nftables

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"minato/internal/model"
)

// Plan is the plan of a whole snapshot, for people: show, golden files and tests. Appliers plan Service by Service.
type Plan struct {
	Revision uint64
	Node     NodePlan
	Services []*ServicePlan // in the order of their names
}

// New plans a whole snapshot on its node. The Services in except keep their addresses to themselves.
func New(s *model.Snapshot, except map[model.ServiceName]bool) *Plan {
	p := &Plan{Revision: s.Revision, Node: PlanNode(s.Node)}
	for svc := range s.Services() {
		if sp := PlanService(svc, s.Node, except[svc.Name]); sp != nil {
			p.Services = append(p.Services, sp)
		}
	}
	return p
}

// WriteText prints the plan, one line for each frontend and endpoint, sorted.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s inside=%v source=%v\n", p.Node.Name, p.Node.Inside, valid(p.Node.Source4, p.Node.Source6))
	for _, s := range p.Services {
		s.writeText(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func valid(in ...netip.Addr) (out []netip.Addr) {
	for _, a := range in {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// WriteText prints the plan of one Service.
func (p *ServicePlan) WriteText(w io.Writer) error {
	var b strings.Builder
	p.writeText(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *ServicePlan) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "service %s\n", p.Name)
	names := p.poolNames()
	for i := range p.Pools {
		p.Pools[i].writeText(b, names[i], p.Hairpin)
	}
	for _, f := range p.Frontends {
		fmt.Fprintf(b, "  frontend %s %s: %s of pool %s%s\n", f.Key, f.Kind, p.Pools[f.Pool].Class, names[f.Pool], f.attributes())
	}
	for _, a := range p.ClusterIPs {
		fmt.Fprintf(b, "  refuse other ports of %s\n", a)
	}
	for _, a := range p.LoadBalancers {
		fmt.Fprintf(b, "  drop other ports of %s, answer its pings\n", a)
	}
	for _, a := range p.Pass {
		fmt.Fprintf(b, "  leave %s alone\n", a)
	}
}

// poolNames name the pools by their port as kubectl does, "http 80/tcp"; its number is left out where the node has the
// port as a NodePort alone.
func (p *ServicePlan) poolNames() []string {
	type port struct {
		name     string
		protocol model.Protocol
	}
	numbers := map[port]uint16{}
	for _, f := range p.Frontends {
		if f.Kind != model.NodePort {
			numbers[port{p.Pools[f.Pool].Key.Port, f.Protocol}] = f.Port
		}
	}
	var names []string
	for i := range p.Pools {
		k := p.Pools[i].Key
		names = append(names, k.text(numbers[port{k.Port, k.Protocol}]))
	}
	return names
}

// text is the key with the number of its port; 0: not known.
func (k PoolKey) text(number uint16) string {
	family, port := "ipv4", k.Protocol.String()
	if k.IPv6 {
		family = "ipv6"
	}
	if number > 0 {
		port = fmt.Sprintf("%d/%s", number, port)
	}
	if k.Port != "" {
		port = k.Port + " " + port
	}
	return fmt.Sprintf("%s %s %s", port, family, k.Policy)
}

func (p *Pool) writeText(b *strings.Builder, name string, hairpin []netip.Addr) {
	fmt.Fprintf(b, "  pool %s: %s\n", name, p.Class)
	for _, e := range p.Endpoints {
		local := ""
		for _, h := range hairpin {
			if h == e.Addr() {
				local = " on this node"
			}
		}
		fmt.Fprintf(b, "    endpoint %s probability=%.3f%s\n", e, 1/float64(len(p.Endpoints)), local)
	}
}

func (f Frontend) attributes() string {
	s := ""
	if f.Masquerade {
		s += ", masquerade"
	}
	if len(f.Sources) > 0 {
		s += fmt.Sprintf(", from %v only", f.Sources)
	}
	return s
}

func (k Key) String() string {
	return fmt.Sprintf("%s %s/%s", k.Scope, netip.AddrPortFrom(k.Addr, k.Port), k.Protocol)
}

func (k PoolKey) String() string { return k.text(0) }

func (c Class) String() string {
	switch {
	case c.Verdict != model.Forward:
		return c.Verdict.String()
	case c.Affinity > 0:
		return fmt.Sprintf("affinity %s over %d", c.Affinity, c.N)
	}
	return fmt.Sprintf("random over %d", c.N)
}
