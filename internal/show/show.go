// Package show says what the Services come to on one node: as text for people, and as rows with stable names for
// programs. Each view is one step of the data: what is wanted (services), at which addresses (frontends), who gets,
// announces and serves them (addresses, announcements, routes), and what the node is told (nftables, dns).
//
// It reads plans and snapshots, and by functions of its World what the node's kernel holds and has counted. It changes
// nothing.
package show

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"minato/internal/announce"
	"minato/internal/dataplane/nftables"
	"minato/internal/dns"
	"minato/internal/ingress"
	"minato/internal/ipam"
	"minato/internal/model"
)

// Views are the names that Of knows.
var Views = []string{"services", "frontends", "addresses", "announcements", "routes", "nftables", "connections", "dns"}

// World is what views are made of.
type World struct {
	Snapshot *model.Snapshot // as the node sees it
	Except   map[model.ServiceName]bool
	Ingress  *ingress.Plan
	Names    dns.View
	// Held reads what the node's kernel holds for a frontend, to compare; nil: nothing is compared.
	Held func(nftables.Key) (nftables.Held, error)
	// Connections reads what the node's kernel has counted, of all Services or of one with its endpoints.
	Connections func(only model.ServiceName) ([]Connection, error)
}

// View is one view. Rows marshal to JSON with the field names that docs/cli.md lists.
type View struct {
	Rows any
	Text func(io.Writer) error
}

// ErrNoView says that there is no view of a name.
var ErrNoView = errors.New("no such view")

// Of makes a view of all Services, or of one if only is not the zero name.
func Of(name string, w World, only model.ServiceName) (View, error) {
	switch name {
	case "nftables":
		return tables(w, only)
	case "connections":
		rows, err := w.Connections(only)
		return View{rows, func(out io.Writer) error { return writeConnections(rows, out) }}, err
	}
	v, ok := planned(name, w, only)
	if !ok {
		return v, ErrNoView
	}
	return v, nil
}

// planned are the views of plans and snapshots alone.
func planned(name string, w World, only model.ServiceName) (View, bool) {
	all := only == model.ServiceName{}
	switch name {
	case "services":
		s := w.Snapshot
		if !all {
			s = alone(s, only)
		}
		return View{services(s), s.WriteText}, true
	case "frontends":
		rows := frontends(w.Snapshot, only)
		return View{rows, func(out io.Writer) error { return writeFrontends(rows, out) }}, true
	case "addresses":
		return addresses(w.Snapshot, only), true
	case "announcements":
		p := announce.New(w.Snapshot)
		list := p.Announcements()
		if !all {
			list = slices.DeleteFunc(slices.Clone(list), func(a *announce.Announcement) bool { return !slices.Contains(a.Services, only) })
		}
		return View{announcements(list), func(out io.Writer) error { return announce.WriteText(out, list) }}, true
	case "routes":
		rows := routes(w.Ingress, only)
		text := w.Ingress.WriteText
		if !all {
			text = func(out io.Writer) error { return writeRoutes(rows, out) }
		}
		return View{rows, text}, true
	case "dns":
		records := w.Names.Records()
		if !all {
			records = slices.DeleteFunc(records, func(r dns.Record) bool { return !about(r, only) })
		}
		return View{records, func(out io.Writer) error { return writeRecords(records, out) }}, true
	}
	return View{}, false
}

// alone is the snapshot with one Service and what it needs.
func alone(s *model.Snapshot, only model.ServiceName) *model.Snapshot {
	return model.Empty().With(func(e *model.Edit) {
		for n := range s.Nodes() {
			e.SetNode(n)
		}
		if svc := s.Service(only); svc != nil {
			e.SetService(svc)
		}
		e.SetConflicts(slices.DeleteFunc(slices.Clone(s.Conflicts()), func(c model.Conflict) bool { return c.Winner != only && c.Loser != only }))
	})
}

func addresses(s *model.Snapshot, only model.ServiceName) View {
	l := s.LoadBalancing
	if l == nil || l.Elsewhere != "" {
		reason := "the configuration has not been read yet"
		if l != nil {
			reason = l.Elsewhere + " serves load balancers"
		}
		return View{Addresses{Nothing: reason, Services: []Address{}}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, "no address is given: "+reason)
			return err
		}}
	}
	p := ipam.Allocate(s, nil)
	if (only != model.ServiceName{}) {
		p.Decisions = slices.DeleteFunc(p.Decisions, func(d ipam.Decision) bool { return d.Service != only })
	}
	return View{decisions(l.Origin, p), func(w io.Writer) error {
		if _, err := fmt.Fprintf(w, "pools by %s\n\n", l.Origin); err != nil {
			return err
		}
		return p.WriteText(w)
	}}
}

func writeFrontends(rows []Frontend, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ADDRESS\tPROTOCOL\tKIND\tSERVICE\tPORT\tVERDICT\tBACKENDS")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.Address, r.Protocol, r.Kind, r.Service, r.Port, r.Verdict, len(r.Backends))
	}
	return t.Flush()
}

func writeRoutes(r Routes, w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "HOST\tPATH\tTYPE\tSERVICE\tINGRESS")
	for _, h := range r.Hosts {
		for _, p := range h.Routes {
			host := h.Host
			if host == "" {
				host = "(any)"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s:%s\t%s\n", host, p.Path, p.Type, p.Service, p.Port, p.Ingress)
		}
	}
	return t.Flush()
}

func writeRecords(records []dns.Record, w io.Writer) error {
	var b strings.Builder
	for _, r := range records {
		b.WriteString(r.String() + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// about reports whether a record is of a Service: its name or its content is the Service's or below it.
func about(r dns.Record, s model.ServiceName) bool {
	is := func(name string) bool {
		return strings.Contains("."+name, "."+s.Name+"."+s.Namespace+".svc.")
	}
	return is(r.Name) || is(r.Data)
}
