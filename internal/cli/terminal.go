package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// colour is an SGR parameter (ECMA-48 §8.3.117).
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	cyan   colour = "36"
	bold   colour = "1"
	dim    colour = "2"
)

// isTerminal reports whether a person looks at w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// painter colours text where w is a terminal and nobody has asked for none (https://no-color.org).
func painter(w io.Writer) func(c colour, text string) string {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(w) {
		return func(_ colour, text string) string { return text }
	}
	return func(c colour, text string) string { return fmt.Sprintf("\x1b[%sm%s\x1b[0m", c, text) }
}
