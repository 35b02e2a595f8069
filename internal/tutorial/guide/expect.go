package guide

import (
	"context"
	"fmt"
	"strings"
	"time"

	"minato/internal/tutorial"
)

// finding is what is not as expected.
type finding struct{ want, found, hint string }

// look compares the cluster with what a step expects, and returns the first difference, or nil.
func (g *Guide) look(ctx context.Context, s tutorial.Step) (*finding, error) {
	for _, e := range s.Expected {
		if err := g.learn(ctx, e.Line+e.Hint, false); err != nil {
			return nil, err
		}
		check, err := tutorial.ParseCheck(tutorial.Fill(e.Line, g.values))
		if err != nil {
			return nil, err
		}
		answer, err := g.Host.Ask(ctx, check.Ask(g.Lesson.Name))
		if err != nil {
			return nil, err
		}
		if found := check.Judge(g.Lang, answer); found != "" {
			return &finding{check.Want(g.Lang), found, tutorial.Fill(e.Hint, g.values)}, nil
		}
	}
	return nil, nil
}

// await looks until the cluster is as a step expects, or patience ends: then it returns the difference.
func (g *Guide) await(ctx context.Context, s tutorial.Step) (*finding, error) {
	limit := patience
	for _, e := range s.Expected {
		if strings.HasPrefix(e.Line, "pods ") {
			limit = podPatience
		}
	}
	said := ""
	defer func() { g.clearLine(said) }()
	for deadline := time.Now().Add(limit); ; {
		f, err := g.look(ctx, s)
		if err != nil || f == nil || time.Now().After(deadline) {
			return f, err
		}
		if waiting := g.Lang.Say("… waiting: %s", "… 待っています: %s", firstLine(f.want+": "+f.found)); waiting != said {
			g.clearLine(said)
			said = waiting
			g.progress(said)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// progress shows a line that goes away again where it can.
func (g *Guide) progress(text string) {
	if g.Live {
		fmt.Fprint(g.Out, g.Paint(Dim, cut(text, 76)))
	} else {
		fmt.Fprintln(g.Out, text)
	}
}

func (g *Guide) clearLine(said string) {
	if g.Live && said != "" {
		fmt.Fprint(g.Out, "\r\x1b[K")
	}
}

// tell says in what the cluster differs, and what to do.
func (g *Guide) tell(f finding) {
	fmt.Fprintln(g.Out, g.Paint(Bad, "✗ "+g.Lang.Say("not as expected", "期待した状態になっていません")))
	for _, row := range []struct{ label, text string }{
		{g.Lang.Say("wanted", "期待"), f.want}, {g.Lang.Say("found", "現状"), f.found}, {g.Lang.Say("try", "対処"), f.hint},
	} {
		if row.text != "" {
			fmt.Fprintf(g.Out, "  %-8s%s\n", row.label, strings.ReplaceAll(row.text, "\n", "\n          "))
		}
	}
}

func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// cut shortens a text to so many columns; characters of East Asia take two.
func cut(text string, columns int) string {
	used := 0
	for i, r := range text {
		width := 1
		if r >= 0x1100 {
			width = 2
		}
		if used += width; used > columns-1 {
			return text[:i] + "…"
		}
	}
	return text
}
