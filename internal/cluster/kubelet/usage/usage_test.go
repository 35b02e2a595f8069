//go:build linux

package usage

import (
	"io/fs"
	"testing"
	"time"

	"minato/internal/cluster/kubelet/cgroup"
)

// cgroups plays the kernel.
type cgroups map[string]time.Duration

func (c cgroups) read(path string) (cgroup.Usage, error) {
	cpu, ok := c[path]
	if !ok {
		return cgroup.Usage{}, fs.ErrNotExist
	}
	return cgroup.Usage{CPU: cpu, Memory: 9, WorkingSet: 8}, nil
}

func TestTheRateIsThatBetweenTwoSamples(t *testing.T) {
	kernel := cgroups{"a": 5 * time.Second}
	s := Sampler{Read: kernel.read}
	start := time.Unix(1000, 0)
	a, b := Group{"a", start.Add(-10 * time.Second)}, Group{"b", start.Add(19 * time.Second)}
	cores := func(path string, want uint64) {
		t.Helper()
		if got, ok := s.Last(path); !ok || got.NanoCores != want {
			t.Errorf("%s uses %d, %v, want %d", path, got.NanoCores, ok, want)
		}
	}
	s.Take(start, []Group{a, b}) // b is not there yet
	cores("a", 5e8)              // since it was made
	if _, ok := s.Last("b"); ok {
		t.Error("a cgroup that is not there has a sample")
	}
	kernel["a"] += 20 * time.Second
	s.Take(start.Add(10*time.Second), []Group{a})
	cores("a", 2e9)
	kernel["b"] = time.Second
	s.Fill(start.Add(20*time.Second), []Group{a, b})
	cores("a", 2e9) // as it was
	cores("b", 1e9)
	kernel["a"] = time.Second // another cgroup of this name
	s.Take(start.Add(20*time.Second), []Group{{"a", start.Add(18 * time.Second)}})
	cores("a", 5e8)
	if _, ok := s.Last("b"); ok {
		t.Error("what was not asked for is still there")
	}
	if got, want := s.Total(), 27*time.Second; got != want {
		t.Errorf("all have used %v, want %v", got, want)
	}
}
