// Package oracle compares minato's DNS with CoreDNS's plugin kubernetes, which runs in the same process on the same
// API objects: random worlds and questions, and the plugin's own tables of cases, read from its module.
//
// It is a module of its own, so that CoreDNS is no dependency of minato. It does not test the forwarder or speed:
// package server and bench do.
package oracle
