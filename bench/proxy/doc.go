// Package proxy compares minato-agent with kube-proxy in its nftables and iptables modes: the same objects from the
// same API (test/feed), in the same run, each alone in a namespace, interleaved. `make bench-proxy` prints the rows of
// bench/RESULTS.md.
//
// Processor time is what counts, of the program and of those it starts: it does not grow with what else the machine
// does. It measures nothing of the real API server, and no DNS.
package proxy
