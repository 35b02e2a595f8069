// Package dns compares minato's DNS server with CoreDNS 1.15.0, with its cache and without, and with NSD: the same
// Services, the same questions, in turns, each server alone on one processor. `make bench-dns` prints the rows of
// bench/RESULTS.md.
//
// It is a module of its own, so that CoreDNS is no dependency of minato. It asserts nothing: it is no test.
package dns
