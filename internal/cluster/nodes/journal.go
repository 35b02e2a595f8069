//go:build linux

package nodes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// journal records what an instance is about to change outside its own namespaces, before it is changed, so that
// Delete can undo it after a crash in between. Links, routes, tables and rules are not in it: those carry a mark.
//
// What it records ends with a reboot, so a journal of an earlier boot counts for nothing.
type journal struct {
	Boot    string         `json:"boot"`
	Netns   []string       `json:"netns"`   // paths of namespaces
	Sysctls []sysctlChange `json:"sysctls"` // in the order to put them back

	path string
}

// sysctlChange is a parameter of the host with the value before us and ours.
type sysctlChange struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	Ours   string `json:"ours,omitempty"` // empty: changed only as a consequence of another one
}

func openJournal(stateDir string) (*journal, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	fresh := journal{Boot: strings.TrimSpace(string(boot)), path: filepath.Join(stateDir, "network.json")}
	j := fresh
	b, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fresh, nil
	case err != nil:
		return nil, fmt.Errorf("read network journal: %w", err)
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("read network journal %s: %w", j.path, err)
	}
	if j.Boot != fresh.Boot {
		return &fresh, nil
	}
	return &j, nil
}

// addNetns records a namespace.
func (j *journal) addNetns(path string) error {
	if slices.Contains(j.Netns, path) {
		return nil
	}
	j.Netns = append(j.Netns, path)
	return j.write()
}

// removeNetns forgets a namespace that is gone.
func (j *journal) removeNetns(path string) error {
	j.Netns = slices.DeleteFunc(j.Netns, func(p string) bool { return p == path })
	return j.write()
}

// addSysctls records changes, unless they are: what was before us is known only the first time.
func (j *journal) addSysctls(changes []sysctlChange) error {
	if len(j.Sysctls) > 0 {
		return nil
	}
	j.Sysctls = changes
	return j.write()
}

// write replaces the file as a whole: a reader sees the old one or the new one.
func (j *journal) write() error {
	b, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return fmt.Errorf("write network journal: %w", err)
	}
	f, err := os.Create(j.next())
	if err != nil {
		return fmt.Errorf("write network journal: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(j.next(), j.path)
	}
	if err != nil {
		return fmt.Errorf("write network journal: %w", err)
	}
	return nil
}

// next is the file that becomes the journal once it is written.
func (j *journal) next() string { return j.path + ".next" }

// remove deletes the file, and what a crash left of one: nothing is left to undo.
func (j *journal) remove() error {
	for _, path := range []string{j.next(), j.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove network journal: %w", err)
		}
	}
	return nil
}
