// Package deb resolves, downloads and reads packages of the Debian archive that this machine's apt is set up for.
//
// It asks apt-cache, apt-get and dpkg-deb, so mirrors, proxies, pins and keys are those of the machine.
//
// It installs nothing, runs no maintainer script and never changes the machine's package state.
package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNotFound is wrapped by errors about dependencies that no package of the archive meets.
var ErrNotFound = errors.New("no such package")

// Package is one version of a package for one architecture.
type Package struct {
	Name, Version, Arch string
	Depends             [][]string // names; each dependency is met by any one of its alternatives
}

// File is the name of the package's file, as apt writes it.
func (p Package) File() string {
	return fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Arch)
}

func (p Package) String() string { return p.Name + "=" + p.Version }

// Arch is the machine's architecture in Debian's words, such as amd64 or arm64.
func Arch(ctx context.Context) (string, error) {
	out, err := run(ctx, "dpkg", "--print-architecture")
	return strings.TrimSpace(string(out)), err
}

// Archive is what apt knows of some packages, at their candidate versions, by name.
type Archive map[string]Package

// Load reads the named packages and all that they may depend on. It asks apt twice however many names there are, because
// apt reads its whole archive each time.
func Load(ctx context.Context, names []string) (Archive, error) {
	depends := []string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}
	out, err := run(ctx, "apt-cache", append(depends, names...)...)
	if err != nil {
		return nil, fmt.Errorf("look up packages (`apt-get update` may help): %w", err)
	}
	show := []string{"show", "--no-all-versions"}
	for _, line := range strings.Split(string(out), "\n") {
		// Packages stand at the line's start, what they depend on is indented, virtual ones are in brackets.
		if line != "" && !strings.ContainsAny(line[:1], " <|") {
			show = append(show, line)
		}
	}
	if out, err = run(ctx, "apt-cache", show...); err != nil {
		return nil, fmt.Errorf("look up packages: %w", err)
	}
	known := Archive{}
	for _, paragraph := range strings.Split(string(out), "\n\n") {
		if p := parse(paragraph); p.Name != "" {
			known[p.Name] = p
		}
	}
	return known, nil
}

// Resolve returns the named packages and all that they depend on, sorted by name, without those in skip and what only
// those need. Of alternatives it takes the first that exists.
func (a Archive) Resolve(names, skip []string) ([]Package, error) {
	chosen := Archive{}
	var wanted [][]string
	for _, n := range names {
		wanted = append(wanted, []string{n})
	}
	for len(wanted) > 0 {
		alternatives := wanted[0]
		wanted = wanted[1:]
		i := slices.IndexFunc(alternatives, func(n string) bool { _, ok := a[n]; return ok })
		if i < 0 {
			return nil, fmt.Errorf("%s: %w", strings.Join(alternatives, " | "), ErrNotFound)
		}
		p := a[alternatives[i]]
		if _, done := chosen[p.Name]; !done {
			chosen[p.Name] = p
			wanted = append(wanted, without(p.Depends, skip)...)
		}
	}
	return slices.SortedFunc(maps.Values(chosen), func(a, b Package) int { return strings.Compare(a.Name, b.Name) }), nil
}

// without leaves out every dependency that a skipped package could meet.
func without(depends [][]string, skip []string) [][]string {
	return slices.DeleteFunc(slices.Clone(depends), func(alternatives []string) bool {
		return slices.ContainsFunc(alternatives, func(n string) bool { return slices.Contains(skip, n) })
	})
}

// parse reads one paragraph of a control file.
func parse(paragraph string) Package {
	var p Package
	for _, line := range strings.Split(paragraph, "\n") {
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Arch = value
		case "Depends", "Pre-Depends":
			p.Depends = append(p.Depends, parseDepends(value)...)
		}
	}
	return p
}

// parseDepends reads "a (>= 1), b:any | c" as [[a] [b c]]. Versions are left to the archive, which is consistent.
func parseDepends(value string) [][]string {
	var depends [][]string
	for _, dependency := range strings.Split(value, ",") {
		var alternatives []string
		for _, alternative := range strings.Split(dependency, "|") {
			name, _, _ := strings.Cut(strings.TrimSpace(alternative), " ")
			name, _, _ = strings.Cut(name, ":")
			alternatives = append(alternatives, name)
		}
		depends = append(depends, alternatives)
	}
	return depends
}

// Download makes sure that the packages' files are in dir. Those already there are not fetched again.
func Download(ctx context.Context, dir string, packages []Package) error {
	var missing []Package
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(dir, p.File())); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// Into a folder of its own first, so that another process never sees half a file.
	tmp, err := os.MkdirTemp(dir, "download-")
	if err != nil {
		return fmt.Errorf("make download folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-q")
	cmd.Dir = tmp
	for _, p := range missing {
		cmd.Args = append(cmd.Args, p.String())
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args[:2], " "), err, out)
	}
	for _, p := range missing {
		if err := os.Rename(filepath.Join(tmp, p.File()), filepath.Join(dir, p.File())); err != nil {
			return fmt.Errorf("keep downloaded package: %w", err)
		}
	}
	return nil
}

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
