//go:build linux

// Package usage turns what cgroups have used since they were made into what they use now: it keeps the sample before
// the last, and the difference is the rate.
//
// It has no clock and takes samples only when it is asked to.
package usage

import (
	"sync"
	"time"

	"minato/internal/cluster/kubelet/cgroup"
)

// Group is a cgroup to be sampled.
type Group struct {
	Path  string
	Since time.Time // when it was made, about: until there are two samples the rate counts from here
}

// Sample is what a cgroup had used at a time.
type Sample struct {
	cgroup.Usage
	At        time.Time
	NanoCores uint64 // of CPU, on average since the sample before: 10⁹ is one core
}

// Sampler keeps the last sample of each cgroup. It may be used concurrently.
type Sampler struct {
	Read func(path string) (cgroup.Usage, error) // an error leaves the cgroup out: it has just gone, or is not there yet

	mu    sync.Mutex
	last  map[string]Sample
	total time.Duration
}

// Take samples exactly these cgroups at now, and forgets others.
func (s *Sampler) Take(now time.Time, groups []Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.last
	s.last = make(map[string]Sample, len(groups))
	for _, g := range groups {
		s.take(now, g, before[g.Path])
	}
}

// Fill samples those of the cgroups at now that have no sample yet, and keeps the others' as they are.
func (s *Sampler) Fill(now time.Time, groups []Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[string]Sample, len(groups))
	}
	for _, g := range groups {
		if _, known := s.last[g.Path]; !known {
			s.take(now, g, Sample{})
		}
	}
}

// take samples one cgroup, of which before is the last sample, zero if there is none. The mutex is held.
func (s *Sampler) take(now time.Time, g Group, before Sample) {
	u, err := s.Read(g.Path)
	if err != nil {
		return
	}
	if before.At.IsZero() || u.CPU < before.CPU { // new, or made anew under its old name
		before = Sample{At: g.Since}
	}
	sample, used, passed := Sample{Usage: u, At: now}, u.CPU-before.CPU, now.Sub(before.At)
	if passed > 0 {
		sample.NanoCores = uint64(float64(used) / passed.Seconds())
	}
	s.last[g.Path] = sample
	s.total += used
}

// Total is the CPU time of all that was ever sampled. It never goes back.
func (s *Sampler) Total() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Last is the newest sample of a cgroup.
func (s *Sampler) Last(path string) (Sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sample, ok := s.last[path]
	return sample, ok
}
