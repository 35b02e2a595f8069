package cli

import (
	"io"
	"strings"
	"testing"
)

func TestOnlyTheStatesOfATableArePainted(t *testing.T) {
	const table = "revision 9\n\nNODE    LAG   STATE\nnode1   0     ok\nnode1   1     no room\nnode2   0     frozen\n\nnode2: is stopped, a long line\n"
	want := strings.NewReplacer("     ok", "     <32 ok>", "no room", "<31 no room>", "     frozen", "     <33 frozen>").Replace(table)
	for _, size := range []int{1, 7, len(table)} {
		var out strings.Builder
		w := paintStates(&out, func(c colour, text string) string { return "<" + string(c) + " " + text + ">" })
		if _, err := io.CopyBuffer(w, io.LimitReader(strings.NewReader(table), 1<<20), make([]byte, size)); err != nil || out.String() != want {
			t.Errorf("writes of %d bytes: %v, got\n%s\nwant\n%s", size, err, out.String(), want)
		}
	}
}

func TestNothingIsPaintedWhereNobodyLooks(t *testing.T) {
	var out strings.Builder
	if got := painter(&out)(red, "no room"); got != "no room" {
		t.Errorf("got %q", got)
	}
}
