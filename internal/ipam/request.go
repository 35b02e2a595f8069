package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"minato/internal/model"
)

// request is one Service on its way to a decision.
type request struct {
	svc      *model.Service
	had      []netip.Addr
	families []family
}

// family is what a Service gets of one IP family.
type family struct {
	ipv6    bool
	asked   netip.Addr // invalid: any
	had     netip.Addr // in the status, invalid: none
	got     netip.Addr
	pool    string
	dropped string
	problem string
}

// newRequest: one address for each family of the Service, its primary family first.
func newRequest(svc *model.Service, had []netip.Addr) *request {
	r := &request{svc: svc, had: had}
	for _, c := range svc.ClusterIPs {
		f := family{ipv6: c.Is6()}
		is := func(a netip.Addr) bool { return a.Is6() == f.ipv6 }
		if i := slices.IndexFunc(svc.LoadBalancer.Addrs, is); i >= 0 {
			f.asked = svc.LoadBalancer.Addrs[i]
		}
		if i := slices.IndexFunc(had, is); i >= 0 {
			f.had = had[i]
		}
		r.families = append(r.families, f)
	}
	return r
}

func (r *request) decision() Decision {
	d := Decision{Service: r.svc.Name, Had: r.had}
	var dropped, problems []string
	for _, f := range r.families {
		if f.got.IsValid() {
			d.Addrs = append(d.Addrs, f.got)
			if d.Pool == "" {
				d.Pool = f.pool
			}
		}
		if f.dropped != "" && f.got != f.had {
			dropped = append(dropped, f.dropped)
		}
		if f.problem != "" {
			problems = append(problems, f.problem)
		}
	}
	d.Dropped = strings.Join(dropped, "; ")
	switch {
	case r.svc.LoadBalancer.Problem != "":
		d.Problem = r.svc.LoadBalancer.Problem
	case len(r.families) == 0:
		d.Problem = "it has no clusterIP"
	case len(d.Addrs) > 0 && len(r.svc.LoadBalancer.Addrs) == 0:
		// Of a Service of two families, one that no pool has is no problem (PreferDualStack).
	default:
		d.Problem = strings.Join(problems, "; ")
	}
	if d.Problem == "" {
		d.Problem = r.unservable()
	}
	return d
}

// unservable is an address that was asked for and is of a family which the Service does not have.
func (r *request) unservable() string {
	for _, a := range r.svc.LoadBalancer.Addrs {
		if !slices.ContainsFunc(r.svc.ClusterIPs, func(c netip.Addr) bool { return c.Is6() == a.Is6() }) {
			return fmt.Sprintf("%q is not of an IP family of the Service", a)
		}
	}
	return ""
}
