package source

import "minato/internal/model"

// interner keeps one copy of each of the strings that repeat over backends: names of nodes, zones and ports.
type interner map[string]string

// internLimit bounds what is remembered of names that are long gone. Starting anew costs only some sharing.
const internLimit = 1 << 16

func (in interner) of(s string) string {
	if s == "" {
		return ""
	}
	if one, ok := in[s]; ok {
		return one
	}
	if len(in) >= internLimit {
		clear(in)
	}
	in[s] = s
	return s
}

// share replaces the repeating strings of a slice that is not published yet.
func (in interner) share(sl *model.BackendSlice) {
	for i := range sl.Backends {
		b := &sl.Backends[i]
		b.PortName = in.of(b.PortName)
		b.NodeName = in.of(b.NodeName)
		b.Zone = in.of(b.Zone)
		in.shareAll(b.ForZones)
		in.shareAll(b.ForNodes)
	}
}

func (in interner) shareAll(names []string) {
	for i, n := range names {
		names[i] = in.of(n)
	}
}
