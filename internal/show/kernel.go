package show

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"text/tabwriter"

	"minato/internal/dataplane/nftables"
	"minato/internal/model"
)

// Connection is a row of connections: those to a port of a Service in one family and by one policy, as the kernel has
// counted them.
type Connection struct {
	Service   string               `json:"service"`
	Port      string               `json:"port,omitempty"`
	Protocol  string               `json:"protocol"`
	Family    string               `json:"family"`
	Policy    string               `json:"policy"`
	Forwarded uint64               `json:"forwarded"`
	Refused   uint64               `json:"refused"`
	Dropped   uint64               `json:"dropped"`
	Endpoints []EndpointConnection `json:"endpoints,omitempty"` // where one Service was asked for
}

// EndpointConnection is what was forwarded to one endpoint.
type EndpointConnection struct {
	Address   netip.AddrPort `json:"address"`
	Forwarded *uint64        `json:"forwarded"` // null: it is not counted
}

func writeConnections(rows []Connection, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tPORT\tPROTOCOL\tFAMILY\tPOLICY\tFORWARDED\tREFUSED\tDROPPED")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\n", r.Service, r.Port, r.Protocol, r.Family, r.Policy, r.Forwarded, r.Refused, r.Dropped)
		for _, e := range r.Endpoints {
			n := "not counted"
			if e.Forwarded != nil {
				n = fmt.Sprint(*e.Forwarded)
			}
			fmt.Fprintf(t, "  %s\t\t\t\t\t%s\t\t\n", e.Address, n)
		}
	}
	return t.Flush()
}

// tables is the plan of nftables, and in what the kernel differs from it.
func tables(w World, only model.ServiceName) (View, error) {
	p := nftables.New(w.Snapshot, w.Except)
	if (only != model.ServiceName{}) {
		p.Services = slices.DeleteFunc(slices.Clone(p.Services), func(s *nftables.ServicePlan) bool { return s.Name != only })
	}
	rows, err := rules(p, w.Held)
	return View{rows, func(out io.Writer) error {
		if err := p.WriteText(out); err != nil {
			return err
		}
		for _, r := range rows {
			for _, d := range r.Kernel {
				if _, err := fmt.Fprintf(out, "the kernel differs: for %s %s/%s of %s it %s\n", r.Scope, r.Address, r.Protocol, r.Service, d); err != nil {
					return err
				}
			}
		}
		return nil
	}}, err
}

func rules(p *nftables.Plan, held func(nftables.Key) (nftables.Held, error)) ([]Rule, error) {
	out := []Rule{}
	for _, s := range p.Services {
		for _, f := range s.Frontends {
			pool := &s.Pools[f.Pool]
			r := Rule{
				Service: s.Name.String(), Address: netip.AddrPortFrom(f.Addr, f.Port), Protocol: f.Protocol.String(), Scope: f.Scope.String(),
				Kind: f.Kind.String(), Verdict: pool.Class.Verdict.String(), Affinity: int(pool.Class.Affinity.Seconds()),
				Masquerade: f.Masquerade, Sources: f.Sources, Endpoints: append([]netip.AddrPort{}, pool.Endpoints...),
			}
			if held != nil {
				h, err := held(f.Key)
				if err != nil {
					return nil, fmt.Errorf("read what the kernel holds for %s of Service %s: %w", f.Key, s.Name, err)
				}
				r.Kernel = h.Differences(f, pool)
			}
			out = append(out, r)
		}
	}
	return out, nil
}
