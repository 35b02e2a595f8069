package announce

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText prints the plan: one line for each address, with the reason for every node that does not announce it.
func (p *Plan) WriteText(w io.Writer) error { return WriteText(w, p.Announcements()) }

// WriteText prints some announcements as a table.
func WriteText(w io.Writer, list []*Announcement) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ADDRESS\tNODE\tPOOL\tSERVICES\tNOT BY")
	for _, a := range list {
		node, pool := a.Node, a.Pool
		if node == "" {
			node = "<nobody>"
		}
		if pool == "" {
			pool = "-"
		}
		var services []string
		for _, s := range a.Services {
			services = append(services, s.String())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Addr, node, pool, strings.Join(services, ","), a.reasons())
	}
	return t.Flush()
}

func (a *Announcement) reasons() string {
	if a.Why != 0 {
		return "anybody: " + a.Why.String()
	}
	var all []string
	for _, l := range a.LeftOut {
		all = append(all, l.Node+": "+l.Reason.String())
	}
	return strings.Join(all, "; ")
}
