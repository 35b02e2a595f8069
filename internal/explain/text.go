package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteText prints the explanation for people, one fact a line, in the order in which the connection meets them.
func (r Result) WriteText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(label, format string, v ...any) { fmt.Fprintf(tw, "%s\t%s\n", label, fmt.Sprintf(format, v...)) }
	line("from", "%s", r.From)
	if r.Lookup != nil {
		line("name", "%s", r.Lookup)
	}
	if r.Addr.IsValid() {
		line("to", "%s/%s", r.Addr, r.Protocol)
	}
	if r.Service != "" {
		line("service", "%s", r.service())
	}
	if r.Policy != "" {
		line("policy", "%s, for packets from %s of %s", r.Policy, r.Scope, r.Node)
	}
	common := r.oneSource()
	for i, c := range r.Backends {
		if common {
			line(first(i, "backends"), "%s", c)
		} else {
			line(first(i, "backends"), "%s, sees %s: %s", c, c.Source, c.SourceWhy)
		}
	}
	if common {
		line("client", "seen as %s: %s", r.Backends[0].Source, r.Backends[0].SourceWhy)
	}
	for i, l := range r.LeftOut {
		line(first(i, "left out"), "%s", l)
	}
	for i, n := range r.Notes {
		line(first(i, "note"), "%s", n)
	}
	line("verdict", "%s", r.verdict())
	for i, a := range r.Advice {
		line(first(i, "try"), "%s", a)
	}
	return tw.Flush()
}

func first(i int, label string) string {
	if i == 0 {
		return label
	}
	return ""
}

// oneSource reports whether every backend sees the same client address, for the same reason.
func (r Result) oneSource() bool {
	other := func(c Choice) bool { return c.Source != r.Backends[0].Source || c.SourceWhy != r.Backends[0].SourceWhy }
	return len(r.Backends) > 0 && !slices.ContainsFunc(r.Backends, other)
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
	if r.Reason == "" {
		return string(r.Verdict)
	}
	return string(r.Verdict) + ": " + r.Reason
}

func (l *Lookup) String() string {
	if len(l.Addrs) == 0 && l.CNAME == "" {
		if len(l.Tried) <= 1 {
			return l.Name
		}
		return l.Name + ", tried as " + strings.Join(l.Tried, ", ")
	}
	var b strings.Builder
	b.WriteString(l.Name)
	if found := l.Tried[len(l.Tried)-1]; found != l.Name {
		b.WriteString(" is " + found)
	}
	if l.CNAME != "" {
		fmt.Fprintf(&b, ", an alias of %s", l.CNAME)
	}
	for i, a := range l.Addrs {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + a.String())
	}
	return b.String()
}

func (c Choice) String() string {
	return fmt.Sprintf("%5.1f%%  %s%s", 100*c.Probability, c.Addr, place(c.Pod, c.Node))
}

func (l LeftOut) String() string {
	return fmt.Sprintf("%s%s: %s", l.Addr, place(l.Pod, l.Node), l.Reason)
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
