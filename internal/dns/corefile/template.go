package corefile

import (
	"strings"

	"minato/internal/dns/server"
)

// template reads how replies are made from questions.
func (r *reader) template(l *line) error {
	w := l.words[1:]
	if len(w) < 2 {
		return l.errorf("template takes a class, a type and perhaps zones")
	}
	if !strings.EqualFold(w[0], "IN") && !strings.EqualFold(w[0], "ANY") {
		r.warn(l, "there are names of class IN only: template %s is left out", w[0])
		return nil
	}
	t := server.Template{Type: w[1], Zones: w[2:]}
	if len(t.Zones) == 0 {
		t.Zones = []string{r.zone}
	}
	for _, s := range l.block {
		args := s.words[1:]
		if len(args) == 0 && s.words[0] != "fallthrough" {
			return s.errorf("template: %s takes something", s.words[0])
		}
		switch s.words[0] {
		case "match":
			t.Match = append(t.Match, args...)
		case "answer":
			t.Answers = append(t.Answers, args...)
		case "authority":
			t.Authority = append(t.Authority, args...)
		case "additional":
			t.Additional = append(t.Additional, args...)
		case "rcode":
			t.Rcode = args[0]
		case "fallthrough":
			if t.Fallthrough = args; len(args) == 0 {
				t.Fallthrough = []string{"."}
			}
		default:
			r.warn(s, "option %q of template is not supported and is left out", s.words[0])
		}
	}
	r.c.Server.Templates = append(r.c.Server.Templates, t)
	return nil
}
