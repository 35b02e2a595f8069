package ipam

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText prints the plan: one line for each Service, and the warnings.
func (p *Plan) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tADDRESSES\tPOOL\tREMARK")
	for _, d := range p.Decisions {
		addrs, pool, remark := strings.Join(addrStrings(d.Addrs), ","), d.Pool, "kept"
		if addrs == "" {
			addrs, pool, remark = "<none>", "-", ""
		} else if d.Changed() {
			remark = "new"
		}
		var remarks []string
		for _, s := range []string{remark, d.Dropped, d.Problem} {
			if s != "" {
				remarks = append(remarks, s)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", d.Service, addrs, pool, strings.Join(remarks, "; "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, warning := range p.Warnings {
		if _, err := fmt.Fprintf(w, "warning: %s\n", warning); err != nil {
			return err
		}
	}
	return nil
}
