package explain

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteText prints the explanation for people: the verdict, then one fact a line in the order in which the connection
// meets them, then what to change.
func (r Result) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p := printer{tw}
	p.line("verdict", "%s", r.verdict())
	p.line("from", "%s", r.From)
	if r.Lookup != nil {
		p.lookup(r.Lookup)
	}
	if r.Addr.Port() != 0 {
		p.line("to", "%s/%s", r.Addr, r.Protocol)
	}
	if r.Service != "" {
		p.line("service", "%s", r.service())
	}
	if r.Policy != "" {
		p.line("policy", "%s, for packets from %s of %s", r.Policy, r.Scope, r.Node)
	}
	if r.HTTP == nil {
		p.backends("backends", r.Backends, r.LeftOut)
	} else {
		p.backends("proxies", r.Backends, r.LeftOut)
		p.request(r.HTTP)
	}
	if c := r.Counted; c != nil {
		p.line("counted", "by the kernel of %s, to this port so far: %d forwarded, %d refused, %d dropped", r.Node, c.Forwarded, c.Refused, c.Dropped)
	}
	p.lines("kernel", r.Kernel)
	p.lines("note", r.Notes)
	p.lines("try", r.Advice)
	return tw.Flush()
}

type printer struct{ w io.Writer }

func (p printer) line(label, format string, v ...any) {
	fmt.Fprintf(p.w, "%s\t%s\n", label, fmt.Sprintf(format, v...))
}

func (p printer) lines(label string, all []string) {
	for i, l := range all {
		p.line(first(i, label), "%s", l)
	}
}

// lookup prints every step where more than one was needed.
func (p printer) lookup(l *Lookup) {
	if len(l.Steps) == 0 {
		p.line("name", "%s", l.Name)
		return
	}
	if last := len(l.Steps) - 1; len(l.Addrs) > 0 && last == 0 {
		p.line("name", "%s", l)
		return
	}
	p.line("name", "%s, %s", l.Name, l.Resolver)
	for i, s := range l.Steps {
		p.line(first(i, "asked"), "%s: %s", s.Name, s.Answer)
	}
}

func (p printer) backends(label string, all []Choice, left []LeftOut) {
	common := oneSource(all)
	for i, c := range all {
		if common {
			p.line(first(i, label), "%s", c)
		} else {
			p.line(first(i, label), "%s, sees %s: %s", c, c.Source, c.SourceWhy)
		}
	}
	if common {
		p.line("client", "seen as %s: %s", all[0].Source, all[0].SourceWhy)
	}
	for i, l := range left {
		p.line(first(i, "left out"), "%s", l)
	}
}

func (p printer) request(q *Request) {
	if q.Certificate != "" {
		p.line("tls", "%s", q.Certificate)
	}
	if q.Route != "" {
		p.line("route", "%s", q.Route)
	}
	p.lines("not used", q.Others)
	p.backends("backends", q.Backends, q.LeftOut)
}

func first(i int, label string) string {
	if i == 0 {
		return label
	}
	return ""
}

// oneSource reports whether every backend sees the same client address, for the same reason.
func oneSource(all []Choice) bool {
	other := func(c Choice) bool { return c.Source != all[0].Source || c.SourceWhy != all[0].SourceWhy }
	return len(all) > 0 && !slices.ContainsFunc(all, other)
}

func (r Result) service() string {
	if r.Kind == "" {
		return r.Service
	}
	if r.Port == "" {
		return fmt.Sprintf("%s, its %s", r.Service, r.Kind)
	}
	return fmt.Sprintf("%s, its %s, port %s", r.Service, r.Kind, r.Port)
}

func (r Result) verdict() string {
	switch {
	case r.Reason != "":
		return string(r.Verdict) + ": " + r.Reason
	case r.Pinned != nil:
		return fmt.Sprintf("%s: to %s, which the client keeps by session affinity", r.Verdict, r.Pinned.Backend)
	case len(r.Backends) == 1:
		return fmt.Sprintf("%s: to %s", r.Verdict, r.Backends[0].Addr)
	}
	return fmt.Sprintf("%s: to one of %d backends", r.Verdict, len(r.Backends))
}

func (l *Lookup) String() string {
	var b strings.Builder
	b.WriteString(l.Name)
	if found := l.Steps[len(l.Steps)-1].Name; found != l.Name {
		b.WriteString(" is " + found)
	}
	if l.CNAME != "" {
		fmt.Fprintf(&b, ", an alias of %s", l.CNAME)
	}
	return b.String() + ": " + join(l.Addrs)
}

func (c Choice) String() string {
	return fmt.Sprintf("%5.1f%%  %s%s", 100*c.Probability, written(c.Addr), place(c.Pod, c.Node))
}

func (l LeftOut) String() string {
	return fmt.Sprintf("%s%s: %s", written(l.Addr), place(l.Pod, l.Node), l.Reason)
}

// written leaves out the port where there is none: of a headless Service without ports.
func written(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func place(pod, node string) string {
	var s string
	if pod != "" {
		s = " pod " + pod
	}
	if node != "" {
		s += " on " + node
	}
	return s
}
