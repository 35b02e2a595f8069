// Package bench holds the measurements behind every claim of speed; RESULTS.md has the figures and the commands.
//
// Its benchmarks run in network namespaces of their own and need root. They are not part of the tests.
package bench
