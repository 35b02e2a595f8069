// Package stress changes Services, endpoints and nodes at random while the process of a node is killed, its commits
// are refused or lost, and other programs tear at its rules; and after each while it wants four answers to be one: what
// model.Select says, what the kernel's maps say, where packets go, and what explain says. At last the kernel must be as
// after a fresh load.
//
// What is done follows from a seed, which every failure prints: `make stress SEED=n` does it again. How long things
// take does not.
package stress
