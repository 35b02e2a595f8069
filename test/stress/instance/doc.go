// Package instance kills the programs of an instance at random moments of a rollout, and starts and stops it again and
// again, and counts what is lost and what is left. `make test` runs one round of each; `make stress-instance` runs them
// as often as the project promises.
//
// It measures no speed: bench does.
package instance
