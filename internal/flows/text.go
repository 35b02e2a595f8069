package flows

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
)

// layout has fixed columns, because flows are printed as they come, however many there are.
const layout = "%-8s %-5s %-44s %-46s %-44s %-13s %6s  %s\n"

// WriteHeader prints the names of the columns of WriteText.
func WriteHeader(w io.Writer) error {
	_, err := fmt.Fprintf(w, layout, "NODE", "PROTO", "CLIENT", "SERVICE", "BACKEND", "STATE", "LEFT", "REASON")
	return err
}

// WriteText prints the flow as one line.
func (f Flow) WriteText(w io.Writer) error {
	reason := f.Reason
	if f.Backend.IsValid() && f.SeenAs != f.Client.Addr() {
		reason += "; seen as " + f.SeenAs.String()
	}
	event := ""
	if f.Event != "" {
		event = fmt.Sprintf("%-4s", f.Event)
	}
	_, err := fmt.Fprintf(w, "%s"+layout, event, f.Node, f.Protocol, with(f.Client, f.ClientPod), f.Service+" "+f.Frontend.String(),
		with(f.Backend, f.BackendPod), cmp.Or(f.State, "-"), fmt.Sprintf("%ds", f.LeftSeconds), reason)
	return err
}

func with(a netip.AddrPort, pod string) string {
	switch {
	case !a.IsValid():
		return "-"
	case pod == "":
		return a.String()
	}
	return a.String() + " " + pod
}
