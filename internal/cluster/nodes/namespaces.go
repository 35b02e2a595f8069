//go:build linux

package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"minato/internal/netns"
)

// makeNetns makes a namespace of the instance, or adopts it, and opens it.
func (c *Config) makeNetns(name string, j *journal) (*space, error) {
	path := NetnsPath(c.Name, name)
	if isNetns(path) {
		own, err := c.owns(path, j)
		if err != nil {
			return nil, err
		}
		if !own {
			return nil, problem("remove network namespace %s or choose another --name: it is not of instance %s", filepath.Base(path), c.Name)
		}
	}
	if err := j.addNetns(path); err != nil {
		return nil, err
	}
	if !isNetns(path) {
		if err := netns.Delete(path); err != nil { // a file without a namespace, of a crash
			return nil, err
		}
		if err := netns.Create(path); err != nil {
			return nil, err
		}
	}
	s, err := openSpace(netns.At(path))
	if err != nil {
		return nil, err
	}
	if err := s.mark(c.Name); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// mark brings up lo, whose alias says whose namespace it is.
func (s *space) mark(instance string) error {
	lo, err := s.LinkByIndex(loopbackIndex)
	if err != nil {
		return fmt.Errorf("find lo in %s: %w", s.ns, err)
	}
	if lo.Attrs().Alias != owner(instance) {
		if err := s.LinkSetAlias(lo, owner(instance)); err != nil {
			return fmt.Errorf("mark lo in %s: %w", s.ns, err)
		}
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := s.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up lo in %s: %w", s.ns, err)
	}
	return nil
}

// owns reports whether a namespace is the instance's: the journal says so, or the alias of its lo.
func (c *Config) owns(path string, j *journal) (bool, error) {
	if slices.Contains(j.Netns, path) {
		return true, nil
	}
	s, err := openSpace(netns.At(path))
	if err != nil {
		return false, err
	}
	defer s.Close()
	lo, err := s.LinkByIndex(loopbackIndex)
	if err != nil {
		return false, fmt.Errorf("find lo in %s: %w", s.ns, err)
	}
	return lo.Attrs().Alias == owner(c.Name), nil
}

// isNetns reports whether a namespace is mounted at path.
func isNetns(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// ownNetns lists the paths of the instance's namespaces, from the journal and by their marks.
func (c *Config) ownNetns(j *journal) ([]string, error) {
	paths := slices.Clone(j.Netns)
	found, err := filepath.Glob(NetnsPath(c.Name, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		if slices.Contains(paths, path) || !isNetns(path) {
			continue
		}
		own, err := c.owns(path, j)
		if errors.Is(err, fs.ErrNotExist) { // another instance's, gone meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if own {
			paths = append(paths, path)
		}
	}
	return paths, nil
}
