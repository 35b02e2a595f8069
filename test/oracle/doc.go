// Package oracle holds minato's dataplane against kube-proxy's own tests: what those expect of packets, of endpoints
// and of flows is what our plan, our rules and real packets have to do.
//
// The cases are taken from upstream's test functions while they run (package upstream); none is copied. Where minato
// differs on purpose, or has no such setting, the case is named in a table with the reason, and the table is tested as
// well: an entry that is no longer true fails.
//
// It has a module of its own, so that minato itself does not depend on kube-proxy.
package oracle
