package run

import (
	"minato/internal/dns"
	"minato/internal/explain"
)

// names lets explain ask a node's DNS table.
type names struct{ view dns.View }

// Resolve answers a name as the node's DNS server would.
func (n names) Resolve(name string) explain.Resolved { return explain.Resolved(n.view.Resolve(name)) }
