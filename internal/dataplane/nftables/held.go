package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"minato/internal/model"
)

// Held is what a kernel holds for one frontend, element by element as a packet meets it.
type Held struct {
	Found      bool
	Verdict    model.Verdict
	Affinity   time.Duration
	Endpoints  []netip.AddrPort // in any order; an invalid one is chosen at times and not there
	Masquerade bool
}

// Differences says in what a kernel that holds h is not as planned, each as what "the kernel ..." does.
func (h Held) Differences(f Frontend, p *Pool) (out []string) {
	differ := func(format string, v ...any) { out = append(out, fmt.Sprintf(format, v...)) }
	switch {
	case !h.Found:
		differ("does not have this address")
		return out
	case h.Verdict != p.Class.Verdict:
		differ("has the verdict %s, planned is %s", h.Verdict, p.Class.Verdict)
		return out
	}
	for _, e := range p.Endpoints {
		if !slices.Contains(h.Endpoints, e) {
			differ("does not have backend %s", e)
		}
	}
	for _, e := range h.Endpoints {
		switch {
		case !e.IsValid():
			differ("chooses a backend at times that it does not have: such connections are dropped")
		case !slices.Contains(p.Endpoints, e):
			differ("has a backend that is not planned: %s", e)
		}
	}
	if p.Class.Verdict == model.Forward && h.Affinity != p.Class.Affinity {
		differ("has affinity %s, planned is %s", h.Affinity, p.Class.Affinity)
	}
	if h.Masquerade != f.Masquerade {
		differ("has masquerade %t, planned is %t", h.Masquerade, f.Masquerade)
	}
	return out
}
