//go:build linux

// Package mounts takes away what is mounted below folders that are ours: volumes, layers, and what a crash left.
//
// It mounts nothing, and touches nothing outside of the folders that it is given.
package mounts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveBelow detaches everything mounted below the folders, the last mounted first. The folders themselves stay as
// they are. It goes on after errors and returns them all.
func RemoveBelow(dirs ...string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	lines := bytes.Split(bytes.TrimSpace(table), []byte("\n"))
	var errs []error
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(string(lines[i]))
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if !below(point, dirs) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

func below(point string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(point, dir+"/") })
}

// unescape undoes the octal escapes of mountinfo (proc(5)).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
