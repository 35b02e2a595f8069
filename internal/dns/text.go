package dns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// WriteText prints every record that is served from the table, as lines of a zone file sorted by name. It reads the
// wire answers themselves, so it cannot differ from what a client gets. Names that only exist are comments.
func (t *Table) WriteText(w io.Writer) error { return t.View().WriteText(w) }

// WriteText prints the view; see Table.WriteText.
func (v View) WriteText(w io.Writer) error {
	var lines []string
	for _, s := range v.tree.shards {
		if s == nil {
			continue
		}
		for _, e := range s.slots {
			if e != nil {
				lines = append(lines, e.text())
			}
		}
	}
	slices.Sort(lines)
	var b bytes.Buffer
	if !v.tree.complete {
		b.WriteString("; not every Service was read yet: unknown names are answered with SERVFAIL\n")
	}
	for _, l := range lines {
		b.WriteString(l)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// text is one line for each record that answers. Additional records repeat what other names say and are left out.
func (e *entry) text() string {
	name := text(e.name)
	if len(e.sets) == 0 {
		return name + "\t; empty, names exist below it\n"
	}
	var b strings.Builder
	for _, s := range e.sets {
		at := 0
		for range s.answers {
			next := NextRecord(s.body, at)
			ttl := binary.BigEndian.Uint32(s.body[at+6:])
			fmt.Fprintf(&b, "%s\t%d\tIN\t%s\t%s\n", name, ttl, typeName(s.qtype), contents(s.qtype, s.body[at+12:next]))
			at = next
		}
	}
	return b.String()
}

func typeName(t uint16) string {
	switch t {
	case TypeA:
		return "A"
	case TypeAAAA:
		return "AAAA"
	case TypeSRV:
		return "SRV"
	case TypePTR:
		return "PTR"
	case TypeCNAME:
		return "CNAME"
	case TypeNS:
		return "NS"
	case TypeTXT:
		return "TXT"
	}
	return "TYPE" + strconv.Itoa(int(t))
}

func contents(t uint16, b []byte) string {
	switch t {
	case TypeA, TypeAAAA:
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	case TypeSRV:
		u := binary.BigEndian.Uint16
		return fmt.Sprintf("%d %d %d %s", u(b), u(b[2:]), u(b[4:]), text(string(b[6:])))
	case TypeTXT:
		return strconv.Quote(string(b[1:]))
	}
	return text(string(b))
}
