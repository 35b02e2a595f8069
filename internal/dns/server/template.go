package server

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	mdns "github.com/miekg/dns"

	"minato/internal/dns"
)

// Template makes replies from questions, as CoreDNS's plugin template does: before hosts and every zone.
type Template struct {
	Zones       []string // of which it makes replies; none: of all
	Type        string   // of questions; "ANY": all
	Match       []string // expressions, one of which the name must match; none: any name
	Answers     []string // records as a zone file has them, with {{ .Name }} and what else CoreDNS gives
	Authority   []string
	Additional  []string
	Rcode       string   // "": NOERROR
	Fallthrough []string // zones whose names that match no expression are looked up elsewhere; others do not exist
}

// replyTemplate is a Template ready for use. It is immutable.
type replyTemplate struct {
	zones, through []string // wire
	qtype          uint16
	match          []*regexp.Regexp
	sections       [3][]*template.Template
	rcode          int
}

// templated is what a text can name of a question. The names are CoreDNS's.
type templated struct {
	Zone, Name, Class, Type, Remote string
	Match                           []string
	Group                           map[string]string
}

func newTemplates(ts []Template) (out []*replyTemplate, err error) {
	for _, t := range ts {
		n, err := t.compile()
		if err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
		out = append(out, n)
	}
	return out, nil
}

func (t *Template) compile() (n *replyTemplate, err error) {
	n = &replyTemplate{}
	zones := t.Zones
	if len(zones) == 0 {
		zones = []string{"."}
	}
	if n.zones, err = wires(zones); err != nil {
		return nil, err
	}
	if n.through, err = wires(t.Fallthrough); err != nil {
		return nil, err
	}
	var ok bool
	if n.qtype, ok = mdns.StringToType[strings.ToUpper(t.Type)]; !ok {
		return nil, fmt.Errorf("%q is no type of records", t.Type)
	}
	if t.Rcode != "" {
		if n.rcode, ok = mdns.StringToRcode[strings.ToUpper(t.Rcode)]; !ok || n.rcode > 15 {
			return nil, fmt.Errorf("%q is no response code", t.Rcode)
		}
	}
	for _, m := range t.Match {
		r, err := regexp.Compile(m)
		if err != nil {
			return nil, err
		}
		n.match = append(n.match, r)
	}
	if len(n.match) == 0 {
		n.match = []*regexp.Regexp{regexp.MustCompile(".*")}
	}
	for i, texts := range [3][]string{t.Answers, t.Authority, t.Additional} {
		for _, text := range texts {
			parsed, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"parseInt": strconv.ParseUint}).Parse(text)
			if err != nil {
				return nil, err
			}
			n.sections[i] = append(n.sections[i], parsed)
		}
	}
	return n, nil
}

// wires are names in wire form.
func wires(names []string) (out []string, err error) {
	for _, name := range names {
		wire, ok := dns.ParseName(name)
		if !ok {
			return nil, fmt.Errorf("%q is not a domain name", name)
		}
		out = append(out, wire)
	}
	return out, nil
}

// longest finds the longest of the zones that holds a wire name.
func longest(zones []string, name []byte) (zone string, ok bool) {
	for _, z := range zones {
		if within(name, z) && len(z) > len(zone) {
			zone, ok = z, true
		}
	}
	return zone, ok
}

// template answers from the first template that a question matches; done is false when another may know the name.
func (r *responder) template(set *settings, out []byte, limit int) (reply []byte, done bool) {
	q := &r.q
	for _, t := range set.templates {
		zone, ok := longest(t.zones, q.name.Wire())
		if !ok || t.qtype != mdns.TypeANY && t.qtype != q.qtype {
			continue
		}
		name := q.name.String()
		for _, m := range t.match {
			if groups := m.FindStringSubmatch(name); groups != nil {
				return r.fill(t, zone, m, groups, out, limit), true
			}
		}
		if _, ok := longest(t.through, q.name.Wire()); !ok {
			r.count.reply(otherZone, dns.RcodeNXDomain)
			return q.finish(out, flagAA, dns.RcodeNXDomain, 0, 0, 0), true
		}
	}
	return nil, false
}

// fill makes the reply of a template. A text that gives no record is a failure, and is told of in the log.
func (r *responder) fill(t *replyTemplate, zone string, m *regexp.Regexp, groups []string, out []byte, limit int) []byte {
	q := &r.q
	var in dns.Name
	in.Parse([]byte(zone))
	data := templated{Zone: in.String(), Name: q.name.String(), Class: "IN", Type: typeText(q.qtype), Remote: r.from.addr().String(), Match: groups, Group: map[string]string{}}
	for i, g := range groups {
		data.Group[strconv.Itoa(i)] = g
		if name := m.SubexpNames()[i]; name != "" {
			data.Group[name] = g
		}
	}
	var sections [3][]mdns.RR
	for i, texts := range t.sections {
		for _, text := range texts {
			var s strings.Builder
			err := text.Execute(&s, data)
			var rr mdns.RR
			if err == nil {
				rr, err = mdns.NewRR(s.String())
			}
			if err != nil || rr == nil {
				r.s.log.Warn("dns: a template of the Corefile gives no record", "name", data.Name, "record", s.String(), "error", err)
				r.count.reply(otherZone, dns.RcodeServFail)
				return q.finish(out, flagAA, dns.RcodeServFail, 0, 0, 0)
			}
			sections[i] = append(sections[i], rr)
		}
	}
	r.count.reply(otherZone, t.rcode)
	return q.written(out, limit, t.rcode, sections)
}

// written completes a reply, which has its question, with records that another implementation writes.
func (q *query) written(out []byte, limit, rcode int, sections [3][]mdns.RR) []byte {
	m := new(mdns.Msg)
	if err := m.Unpack(out); err != nil {
		return q.finish(out, 0, dns.RcodeServFail, 0, 0, 0)
	}
	m.Answer, m.Ns, m.Extra, m.Compress = sections[0], sections[1], sections[2], true
	flags := uint16(flagAA)
	if m.Truncate(q.room(limit)); m.Truncated {
		flags |= flagTC
	}
	wire, err := m.Pack()
	if err != nil || len(wire) > q.room(limit) {
		return q.finish(out, flagTC, dns.RcodeSuccess, 0, 0, 0)
	}
	return q.finish(append(out, wire[q.end:]...), flags, rcode, uint16(len(m.Answer)), uint16(len(m.Ns)), uint16(len(m.Extra)))
}
