package model

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// DNSConfig is what people configured of DNS, as they wrote it. Package corefile reads it.
type DNSConfig struct {
	Corefile string
	Custom   map[string]string // further files by their names
}

// Equal reports whether both say the same; either may be nil.
func (c *DNSConfig) Equal(o *DNSConfig) bool {
	return c == o || c != nil && o != nil && c.Corefile == o.Corefile && maps.Equal(c.Custom, o.Custom)
}

func (c *DNSConfig) writeText(w io.Writer) {
	fmt.Fprintf(w, "dns corefile=%d bytes custom=%v\n", len(c.Corefile), slices.Sorted(maps.Keys(c.Custom)))
}

// SetDNS records what is configured of DNS, nil when that is nothing. The caller gives c away.
func (e *Edit) SetDNS(c *DNSConfig) { e.s.DNS, e.s.DNSKnown = c, true }
