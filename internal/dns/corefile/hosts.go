package corefile

import (
	"net/netip"
	"path"
	"strings"

	"minato/internal/dns/server"
)

// hosts reads names with addresses.
func (r *reader) hosts(l *line) error {
	h := &list{server.Hosts{TTL: 3600, Addrs: map[string][]netip.Addr{}}}
	for _, w := range l.words[1:] {
		if !strings.HasPrefix(w, "/") {
			continue // a zone
		}
		text, ok := r.files[path.Base(w)]
		if !ok {
			r.warn(l, "file %s is in none of the ConfigMaps, and is left out", w)
			continue
		}
		for s := range strings.Lines(text) {
			words, _, _ := strings.Cut(s, "#")
			h.add(strings.Fields(words)) // a line that is none is passed over, as in /etc/hosts
		}
	}
	for _, s := range l.block {
		switch w := s.words; w[0] {
		case "fallthrough":
			if h.Fallthrough = w[1:]; len(w) == 1 {
				h.Fallthrough = []string{"."}
			}
		case "ttl":
			n, err := number(s, 65535)
			if err != nil {
				return err
			}
			h.TTL = n
		case "no_reverse", "reload":
		default:
			if !h.add(w) {
				return s.errorf("hosts: a line has an address and names, not %q", strings.Join(w, " "))
			}
		}
	}
	r.c.Server.Hosts = &h.Hosts
	return nil
}

// list is Hosts that are being read.
type list struct{ server.Hosts }

// add takes the words of one line, and reports whether they are an address and names.
func (h *list) add(words []string) bool {
	if len(words) < 2 {
		return false
	}
	a, err := netip.ParseAddr(words[0])
	if err != nil {
		return false
	}
	for _, name := range words[1:] {
		h.Addrs[strings.ToLower(name)] = append(h.Addrs[strings.ToLower(name)], a)
	}
	return true
}
