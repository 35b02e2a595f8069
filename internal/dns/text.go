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
	var b bytes.Buffer
	if !v.tree.complete {
		b.WriteString("; not every Service was read yet: unknown names are answered with SERVFAIL\n")
	}
	for _, r := range v.Records() {
		b.WriteString(r.String() + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Record is one record of the table. A name that is there without records of its own, because names exist below it,
// is a Record without a Type.
type Record struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl,omitempty"`
	Type string `json:"type,omitempty"`
	Data string `json:"data,omitempty"`
}

// String is the line of a zone file, or a comment.
func (r Record) String() string {
	if r.Type == "" {
		return r.Name + "\t; empty, names exist below it"
	}
	return fmt.Sprintf("%s\t%d\tIN\t%s\t%s", r.Name, r.TTL, r.Type, r.Data)
}

// Records are all records that are served, sorted by name. Additional records repeat what other names say and are left
// out.
func (v View) Records() []Record {
	var names [][]Record
	for e := range v.tree.all() {
		names = append(names, e.records())
	}
	slices.SortFunc(names, func(a, b []Record) int { return strings.Compare(a[0].String(), b[0].String()) })
	return slices.Concat(names...)
}

func (e *entry) records() (out []Record) {
	name := text(e.name)
	for _, s := range e.sets {
		at := 0
		for range s.answers {
			next := NextRecord(s.body, at)
			out = append(out, Record{name, binary.BigEndian.Uint32(s.body[at+6:]), typeName(s.qtype), contents(s.qtype, s.body[at+12:next])})
			at = next
		}
	}
	if len(out) == 0 {
		return []Record{{Name: name}}
	}
	return out
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
