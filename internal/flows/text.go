package flows

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// nColumns are those before the reason, which is the last and has no width.
const nColumns = 7

type row struct {
	event  string
	cells  [nColumns]string
	reason string
}

// headed are the names of the columns.
var headed = row{cells: [nColumns]string{"NODE", "PROTO", "CLIENT", "SERVICE", "BACKEND", "STATE", "LEFT"}, reason: "REASON"}

// usual are widths for rows that are not known yet: of IPv4, and pods of Deployments with short names.
var usual = [nColumns]int{8, 5, 46, 36, 46, 11, 6}

// heldRows is how many rows of a list are looked at before the first is printed. There may be hundreds of thousands.
const heldRows = 256

// Text prints flows as lines of a table, one for each. A column is as wide as its widest cell was: of a list, the first rows
// are held back to know it; of a watch, each row is printed as it comes, and a wider one shifts those after it. It is for
// one goroutine.
type Text struct {
	w      io.Writer
	watch  bool
	widths [nColumns]int
	held   []row
	begun  bool // the header is out
}

// NewText makes one that writes to w.
func NewText(w io.Writer, watch bool) *Text {
	t := &Text{w: w, watch: watch}
	t.widen(headed)
	if watch {
		t.widths = usual
	}
	return t
}

// Print prints the flow, or holds it back until Flush.
func (t *Text) Print(f Flow) error {
	r := f.row()
	t.widen(r)
	if !t.begun {
		t.held = append(t.held, r)
		if len(t.held) < heldRows {
			return nil
		}
		return t.Flush()
	}
	return t.line(r)
}

// Empty reports whether nothing was printed or is held back.
func (t *Text) Empty() bool { return !t.begun && len(t.held) == 0 }

// Flush prints the header, if it is not out yet, and what is held back. A watch begins with it.
func (t *Text) Flush() error {
	if !t.begun {
		t.begun = true
		if err := t.line(headed); err != nil {
			return err
		}
	}
	for _, r := range t.held {
		if err := t.line(r); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}

func (t *Text) widen(r row) {
	for i, c := range r.cells {
		t.widths[i] = max(t.widths[i], len(c))
	}
}

// line prints a row. LEFT is a number, and stands at the right.
func (t *Text) line(r row) error {
	var b strings.Builder
	if t.watch {
		fmt.Fprintf(&b, "%-4s", r.event)
	}
	for i, c := range r.cells {
		if i == nColumns-1 {
			fmt.Fprintf(&b, "%*s  ", t.widths[i], c)
		} else {
			fmt.Fprintf(&b, "%-*s  ", t.widths[i], c)
		}
	}
	_, err := io.WriteString(t.w, b.String()+r.reason+"\n")
	return err
}

func (f Flow) row() row {
	reason := f.Reason
	if f.Backend.IsValid() && f.SeenAs != f.Client.Addr() {
		reason += "; seen as " + f.SeenAs.String()
	}
	return row{f.Event, [nColumns]string{f.Node, f.Protocol, with(f.Client, f.ClientPod), f.Service + " " + f.Frontend.String(),
		with(f.Backend, f.BackendPod), cmp.Or(f.State, "-"), fmt.Sprintf("%ds", f.LeftSeconds)}, reason}
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
