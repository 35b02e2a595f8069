//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLimitsReachTheKernel reads back what Set has written, in whatever hierarchies this machine has.
func TestLimitsReachTheKernel(t *testing.T) {
	aRoot(t)
	const path = "/minato-cgrouptest-limits/pod1"
	t.Cleanup(func() {
		if err := Remove(filepath.Dir(path)); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		limits Limits
		want   map[string]string
	}{
		{Limits{CPUShares: 102, CPUQuota: 50_000, CPUPeriod: 100_000, Memory: 64 << 20}, map[string]string{
			"cpu.shares": "102", "cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": "67108864",
			"cpu.weight": "4", "cpu.max": "50000 100000", "memory.max": "67108864",
		}},
		{Limits{CPUShares: 2, CPUPeriod: 100_000}, map[string]string{
			"cpu.shares": "2", "cpu.cfs_quota_us": "-1", "cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max",
		}},
	} {
		if err := Set(path, c.limits); err != nil {
			t.Fatal(err)
		}
		if got, err := Get(path); err != nil || got.version1()[0] != c.limits.version1()[0] && got.version2()[0] != c.limits.version2()[0] ||
			got.CPUQuota != c.limits.CPUQuota || got.CPUPeriod != c.limits.CPUPeriod || got.Memory != c.limits.Memory {
			t.Errorf("read back: %+v (%v), want %+v", got, err, c.limits)
		}
		roots, err := hierarchies()
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for _, root := range roots {
			for file, want := range c.want {
				got, err := os.ReadFile(filepath.Join(root.root, path, file))
				if err != nil {
					continue // not a controller of this hierarchy
				}
				if read++; strings.TrimSpace(string(got)) != want {
					t.Errorf("%s: %s, want %s", file, got, want)
				}
			}
		}
		if read == 0 {
			t.Error("no hierarchy has a file of these")
		}
	}
}

// A folder plays a hierarchy of version 2, which this machine may not have.
func TestVersion2HandsControllersDown(t *testing.T) {
	h := hierarchy{t.TempDir(), true}
	write := func(file, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.root, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.controllers", "cpuset cpu io memory\n")
	for _, dir := range []string{"", "minato", "minato/pod1"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(dir, "cgroup.subtree_control"), "")
	}
	for _, file := range []string{"cpu.weight", "cpu.max", "memory.max"} {
		write("minato/pod1/"+file, "")
	}
	if err := set(h, "/minato/pod1", Limits{CPUShares: 1024, CPUPeriod: 100_000, Memory: 1 << 20}.version2()); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"cgroup.subtree_control": "+memory", "minato/cgroup.subtree_control": "+memory", // the last of two writes
		"minato/pod1/cgroup.subtree_control": "", "minato/pod1/cpu.weight": "39", "minato/pod1/memory.max": "1048576",
	} {
		if got, err := os.ReadFile(filepath.Join(h.root, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q (%v), want %q", file, got, err, want)
		}
	}
}

func TestWhatVersion2SaysIsWhatItWasGiven(t *testing.T) {
	for shares := uint64(2); shares <= 262144; shares += 13 {
		given := Limits{CPUShares: shares, CPUQuota: 80_000, CPUPeriod: 100_000, Memory: 64 << 20}
		if shares%2 == 0 {
			given.CPUQuota, given.Memory = 0, 0
		}
		var read Limits
		for _, s := range given.version2() {
			if err := read.parse(s); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(read.version2(), given.version2()) || read.CPUShares > shares {
			t.Fatalf("given %+v, read %+v", given, read)
		}
	}
}

func TestAControlFileOfWordsIsAnError(t *testing.T) {
	for _, file := range []string{"cpu.shares", "cpu.weight", "cpu.max", "memory.max", "memory.limit_in_bytes"} {
		if err := new(Limits).parse(setting{file, "much"}); err == nil {
			t.Errorf("%s of much is fine", file)
		}
	}
}

func TestNoLimitIsTheHighest(t *testing.T) {
	small := Limits{CPUShares: 2, CPUQuota: 50_000, CPUPeriod: 100_000, Memory: 1 << 20}
	large := Limits{CPUShares: 4, CPUQuota: 60_000, CPUPeriod: 100_000, Memory: 2 << 20}
	none := Limits{CPUShares: 4, CPUPeriod: 100_000}
	for _, c := range []struct{ a, b, want Limits }{{small, large, large}, {small, small, small}, {small, none, none}, {large, none, none}} {
		if got := c.a.Raised(c.b); got != c.want {
			t.Errorf("%+v raised to %+v is %+v", c.a, c.b, got)
		}
		if got := c.b.Raised(c.a); got != c.want {
			t.Errorf("%+v raised to %+v is %+v", c.b, c.a, got)
		}
	}
}
