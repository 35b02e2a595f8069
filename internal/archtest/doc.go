// Package archtest holds the rules of ARCHITECTURE.md as tests: which package may import which, and why.
//
// It reads source files and runs nothing of minato.
package archtest
