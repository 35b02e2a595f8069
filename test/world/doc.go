//go:build linux

// Package world brings up a whole minato in network namespaces of its own, for tests that use it as a person does: by its
// command line, by kubectl, and by what answers on the network.
//
// A world has a "host" on which `minato up` runs, an "internet" behind it with a name server and a web server, and no way
// out of the machine. It lives beside any other instance on the machine, and when its test ends it checks that
// `minato delete` left nothing.
//
// It needs root and skips the test otherwise. It judges nothing that a Service does: that is for the tests.
package world
