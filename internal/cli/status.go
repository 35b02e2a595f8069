package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func statusCommand(o *options) *cobra.Command {
	var output string
	var watch bool
	c := &cobra.Command{
		Use: "status", Short: "Show what every component has reached, and how far it is behind", Args: cobra.NoArgs,
		Long: "LAG is how many revisions of the Services a component is behind, and for how long it has been; SINCE is the age of its\n" +
			"state. Exit 0: healthy, 1: a component fails, or has been behind for more than 10 s, or a node is stopped or cut off.\n" +
			"With --watch it prints all again whenever something changed, at most once a second, until it is interrupted.",
		Example: "  minato status\n  minato status --watch\n  minato status -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{"output": {output}}
			if watch {
				q.Set("watch", "true")
			}
			err := o.get(c.Context(), "/status", q, paintStates(c.OutOrStdout(), painter(c.OutOrStdout())))
			if watch && errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on: print again whenever something changed, until interrupted")
	outputFlag(c, &output)
	return c
}

// paintStates colours what is in the column STATE of a table that is written to it.
func paintStates(w io.Writer, paint func(colour, string) string) io.Writer {
	return &statePainter{w: w, paint: paint, column: -1}
}

type statePainter struct {
	w      io.Writer
	paint  func(colour, string) string
	rest   []byte // of a line that has not ended
	column int    // where the states of the table begin; -1 outside of a table
}

func (p *statePainter) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, ended := bytes.Cut(p.rest, []byte("\n"))
		if !ended {
			return len(b), nil
		}
		if _, err := io.WriteString(p.w, p.line(string(line))+"\n"); err != nil {
			return 0, err
		}
		p.rest = rest
	}
}

func (p *statePainter) line(text string) string {
	switch {
	case strings.HasSuffix(text, "   STATE"):
		p.column = strings.LastIndex(text, "STATE")
		return text
	case p.column < 0 || len(text) <= p.column:
		p.column = -1
		return text
	}
	state, c := text[p.column:], red
	switch state {
	case "ok":
		c = green
	case "behind", "frozen":
		c = yellow
	}
	return text[:p.column] + p.paint(c, state)
}
