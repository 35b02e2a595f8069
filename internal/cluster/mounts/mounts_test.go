//go:build linux

package mounts

import "testing"

func TestMountinfoEscapesAreUndone(t *testing.T) {
	if got := unescape(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("got %q", got)
	}
}
