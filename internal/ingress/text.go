package ingress

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"minato/internal/model"
)

// WriteText prints the plan for people and golden files: every host with its certificate and its routes in the order
// in which they are tried, then every pool with its backends, then what is wrong.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, h := range p.Hosts() {
		fmt.Fprintf(&b, "host %s%s\n", cmp.Or(h.Name, "(any)"), h.tlsText())
		for _, r := range h.Routes() {
			fmt.Fprintf(&b, "  %s%s\n", r, r.attributes(p))
		}
	}
	for _, pool := range p.Pools() {
		pool.writeText(&b)
	}
	for i := range p.snapshot.Ingresses() {
		for _, problem := range p.Problems(i.Name) {
			fmt.Fprintf(&b, "problem %s: %s\n", i.Name, problem)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (h *Host) tlsText() string {
	switch {
	case h.TLS == nil:
		return ""
	case h.TLS.Certificate == nil:
		return " tls=default"
	}
	c := h.TLS.Certificate
	return fmt.Sprintf(" tls=%s names=%s until=%s", h.TLS.Secret, strings.Join(c.Names, ","), c.NotAfter.UTC().Format(time.DateOnly))
}

func (r *Route) attributes(p *Plan) string {
	var a string
	switch {
	case r.Redirect == model.RedirectAlways, r.Redirect == model.RedirectTLSHosts && p.hosts[hostKey(r.Host)].TLS != nil:
		a = " http=308"
	case r.Redirect == model.RedirectNever:
		a = " http=served"
	}
	if r.MaxBody > 0 {
		a += fmt.Sprintf(" maxBody=%d", r.MaxBody)
	}
	return a
}

func (p *Pool) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "pool %s %s\n", p.Name, p.Verdict)
	for _, be := range p.Backends {
		fmt.Fprintf(b, "  backend %s%s\n", be.Addr, suffix(be))
	}
	for _, l := range p.LeftOut {
		fmt.Fprintf(b, "  left out %s%s: %s\n", l.Backend.Addr, suffix(l.Backend), l.Reason)
	}
}

func suffix(b *model.Backend) string {
	var s string
	if b.Target != "" {
		s += " " + b.Target
	}
	if b.NodeName != "" {
		s += " on " + b.NodeName
	}
	return s
}
