package deb

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReadsNameVersionAndBothKindsOfDependence(t *testing.T) {
	got := parse(`Package: dnsutils
Version: 1:9.18
Architecture: amd64
Depends: bind9-host | host, libc6 (>= 2.34), perl:any
Pre-Depends: libuv1
Description: names
 Depends: is no field here`)
	want := Package{
		Name: "dnsutils", Version: "1:9.18", Arch: "amd64",
		Depends: [][]string{{"bind9-host", "host"}, {"libc6"}, {"perl"}, {"libuv1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFileIsNamedAsAptNamesIt(t *testing.T) {
	p := Package{Name: "redis-server", Version: "5:7.0.15-1", Arch: "amd64"}
	if got, want := p.File(), "redis-server_5%3a7.0.15-1_amd64.deb"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestASkippedPackageTakesItsAlternativesAlong(t *testing.T) {
	got := without([][]string{{"debconf", "debconf-2.0"}, {"libc6"}}, []string{"debconf"})
	if diff := cmp.Diff([][]string{{"libc6"}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestResolveFollowsDependenciesAndTakesTheFirstAlternativeThatExists(t *testing.T) {
	archive := Archive{
		"curl":    {Name: "curl", Depends: [][]string{{"libcurl"}, {"debconf"}}},
		"libcurl": {Name: "libcurl", Depends: [][]string{{"libcurl"}, {"libssl1", "libssl3"}}},
		"libssl3": {Name: "libssl3"},
		"unused":  {Name: "unused"},
	}
	got, err := archive.Resolve([]string{"curl"}, []string{"debconf"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Package{archive["curl"], archive["libcurl"], archive["libssl3"]}, got); diff != "" {
		t.Error(diff)
	}
}

func TestResolveNamesWhatTheArchiveLacks(t *testing.T) {
	archive := Archive{"web": {Name: "web", Depends: [][]string{{"one", "two"}}}}
	_, err := archive.Resolve([]string{"web"}, nil)
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "one | two") {
		t.Errorf("got %v", err)
	}
}
