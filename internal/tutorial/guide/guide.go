// Package guide walks a person through a lesson: it shows each step, has its commands run here or waits until they were
// typed elsewhere, and goes on when the cluster is as the step expects.
//
// What was reached is kept in the cluster, on the lesson's namespace, and is compared with the cluster's state when one
// comes back. The package knows no lesson and no cluster: it is given both.
package guide

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"minato/internal/tutorial"
)

// Style is how a piece of text is to look.
type Style int

// The styles.
const (
	Title Style = iota
	Command
	Good
	Bad
	Dim
)

// Host is where commands run. Its functions return when ctx ends.
type Host interface {
	// Run runs a line of shell, shows what it prints, and returns its exit code.
	Run(ctx context.Context, line string) (code int, err error)
	// Ask asks without showing anything. A command that fails is an answer, not an error.
	Ask(ctx context.Context, q tutorial.Question) (tutorial.Answer, error)
	// Key waits for a line that the person types, without its end; ok is false when there was none for that long.
	Key(ctx context.Context, patience time.Duration) (line string, ok bool, err error)
}

// Guide walks through one lesson. One goroutine uses it.
type Guide struct {
	Lesson tutorial.Lesson
	Lang   tutorial.Lang
	Nodes  []tutorial.Node
	Host   Host
	Out    io.Writer
	Paint  func(Style, string) string
	Live   bool // Out is a terminal: a line may be written over
	Ask    bool // a person is there; else every command runs, and what is not as expected ends the lesson

	values map[string]string
}

// ErrLeft says that the person has left the lesson before its end.
var ErrLeft = errors.New("left the lesson")

// ErrNotAsExpected says that the cluster is not as a step expects, and nobody was there to be asked. It was told.
var ErrNotAsExpected = errors.New("not as expected")

// How long a step may take to be as expected. Pods may have to pull images first.
const (
	patience    = 45 * time.Second
	podPatience = 3 * time.Minute
	pause       = time.Second // between two looks
)

// Walk goes through the lesson from where it was left.
func (g *Guide) Walk(ctx context.Context) error {
	g.values = tutorial.NodeValues(g.Nodes)
	if err := g.openNamespace(ctx); err != nil {
		return err
	}
	at, err := g.resume(ctx)
	if err != nil {
		return err
	}
	for ; at < len(g.Lesson.Steps); at++ {
		if err := g.step(ctx, at); err != nil {
			return err
		}
		if err := g.save(ctx, g.Lesson.Steps[at]); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guide) say(en, ja string, args ...any) {
	fmt.Fprintln(g.Out, g.Lang.Say(en, ja, args...))
}

// step shows a step, and returns when it is done or skipped.
func (g *Guide) step(ctx context.Context, at int) error {
	s := g.Lesson.Steps[at]
	if err := g.learn(ctx, s.Before(), true); err != nil {
		return err
	}
	s = s.Fill(g.values)
	g.head(at, s)
	done, err := g.commands(ctx, s)
	if err != nil || done == skipped {
		return err
	}
	if done == elsewhere {
		return g.outcome(ctx, at)
	}
	for {
		finding, err := g.await(ctx, g.Lesson.Steps[at])
		switch {
		case err != nil:
			return err
		case finding == nil:
			return g.outcome(ctx, at)
		}
		g.tell(*finding)
		if !g.Ask {
			return ErrNotAsExpected
		}
		again, err := g.askAfter(ctx)
		switch {
		case err != nil:
			return err
		case again == skipped:
			return nil
		case again == ran:
			if err := g.run(ctx, s); err != nil {
				return err
			}
		}
	}
}

// head prints the title of a step and what it is about.
func (g *Guide) head(at int, s tutorial.Step) {
	mark := fmt.Sprintf("%s %d/%d ", g.Lesson.Name, at+1, len(g.Lesson.Steps))
	fmt.Fprintf(g.Out, "\n%s\n\n%s\n\n", g.Paint(Title, "── "+mark+"── "+s.Title), s.Intro)
	if !g.Ask {
		return // each command is shown when it runs
	}
	for _, c := range s.Commands {
		g.show(c)
	}
	fmt.Fprintln(g.Out)
}

// show prints a command as it is to be typed. What is not known yet stands there in capitals.
func (g *Guide) show(c tutorial.Command) {
	for line := range strings.SplitSeq(tutorial.Unfilled(c.Line), "\n") {
		fmt.Fprintf(g.Out, "    %s\n", g.Paint(Command, line))
	}
}

// run runs the commands of a step, each after it was shown.
func (g *Guide) run(ctx context.Context, s tutorial.Step) error {
	for _, c := range s.Commands {
		// A command may need what one before it has made.
		if err := g.learn(ctx, c.Line, false); err != nil {
			return err
		}
		c.Line = tutorial.Fill(c.Line, g.values)
		fmt.Fprintln(g.Out, g.Paint(Command, "$ "+strings.ReplaceAll(c.Line, "\n", "\n> ")))
		code, err := g.Host.Run(ctx, c.Line)
		switch {
		case err != nil:
			return err
		case code != 0 && !c.Fails:
			g.say("%s", "%s", g.Paint(Bad, g.Lang.Say("(it ended with exit code %d)", "(終了コード %d で終わりました)", code)))
		}
		fmt.Fprintln(g.Out)
	}
	return nil
}

// outcome says what was to be seen.
func (g *Guide) outcome(ctx context.Context, at int) error {
	s := g.Lesson.Steps[at]
	if err := g.learn(ctx, s.After(), false); err != nil {
		return err
	}
	s = s.Fill(g.values)
	fmt.Fprintln(g.Out, g.Paint(Good, "✓ "+g.Lang.Say("as expected", "確認できました")))
	if s.Outcome != "" {
		fmt.Fprintln(g.Out, s.Outcome)
	}
	return nil
}

// learn asks for the values that a text has placeholders of. Those that cannot be known yet stay as they are.
func (g *Guide) learn(ctx context.Context, text string, anew bool) error {
	for _, v := range g.Lesson.Needs(text) {
		if g.values[v.Name] != "" && !anew {
			continue
		}
		a, err := g.Host.Ask(ctx, tutorial.Question{Line: tutorial.Fill(v.Command, g.values)})
		if err != nil {
			return err
		}
		if out := strings.TrimSpace(a.Out); a.Code == 0 && out != "" {
			g.values[v.Name] = out
		}
	}
	return nil
}

// forget drops what was learnt, for a look at steps that may be no longer as they were.
func (g *Guide) forget() {
	nodes := tutorial.NodeValues(g.Nodes)
	maps.DeleteFunc(g.values, func(name, _ string) bool { _, ok := nodes[name]; return !ok })
}
