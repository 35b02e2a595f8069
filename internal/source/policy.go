package source

import (
	"net/netip"
	"slices"

	"minato/internal/model"
)

// Policy is what whoever runs the nodes decides, whatever Services ask for.
type Policy struct {
	NodePorts         []netip.Prefix // node addresses in these answer NodePorts; empty: all of them
	RefuseExternalIPs bool           // spec.externalIPs counts for nothing (CVE-2020-8554)
}

// SetPolicy says what holds. It is for the start, before any object.
func (b *Batch) SetPolicy(p Policy) { b.w.policy = p }

// restrict takes from a Service what the policy refuses.
func (p Policy) restrict(o *ServiceObject) {
	external := func(f model.Frontend) bool { return f.Kind == model.ExternalIP }
	if p.RefuseExternalIPs && slices.ContainsFunc(o.Frontends, external) {
		o.Frontends = slices.DeleteFunc(o.Frontends, external)
		o.Warnings = append(o.Warnings, "its externalIPs are not served: this cluster refuses them")
	}
}
