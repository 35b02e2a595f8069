package tutorial

import (
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Lesson is one subject, walked through step by step in a namespace of its own, which has the lesson's name.
type Lesson struct {
	Name, Title, Teaches string
	Minutes              int      // how long a newcomer takes
	Nodes                int      // how many it needs at least
	Programs             []string // that must be on the host
	Images               []string
	Folder               string        // of examples/
	Files                []string      // of that folder, which the commands apply
	Adapt                []Replacement // in the files, for the nodes there are
	Values               []Value
	Clean                []string // commands that undo what is outside the namespace
	Steps                []Step
}

// Replacement is a text of the files, and the words that stand in its place.
type Replacement struct{ Old, New string }

// Value is a placeholder whose text is what a command prints. It is asked for when a step first needs it.
type Value struct{ Name, Command string }

// Step is one thing to do and to see.
type Step struct {
	ID, Title string
	Intro     string // what and why
	Commands  []Command
	Expected  []Expectation
	Outcome   string // what was to be seen
}

// Command is a line of shell, or several.
type Command struct {
	Line  string
	Fails bool // it is meant to: what is shown is an error
}

// Expectation is what must be true after a step's commands, and what to do if it is not.
type Expectation struct {
	Line string // as ParseCheck reads it
	Hint string
}

// files are the lessons: NUMBER-NAME.LANG.txtar.
//
//go:embed lessons/*.txtar
var files embed.FS

// Lessons reads the lessons of a language, in their order. An error is one of the program: the files are part of it.
func Lessons(lang Lang) ([]Lesson, error) {
	entries, err := files.ReadDir("lessons")
	if err != nil {
		return nil, fmt.Errorf("list lessons: %w", err)
	}
	var all []Lesson
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), "."+string(lang)+".txtar")
		if !ok {
			continue
		}
		text, err := files.ReadFile("lessons/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read lesson: %w", err)
		}
		_, name, _ := strings.Cut(base, "-")
		lesson, err := Parse(name, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, lesson)
	}
	return all, nil
}

// Node is a node of the cluster that a lesson is walked through on.
type Node struct{ Name, Addr string }

// placeholder is a word in braces. Those of JSONPath begin with a dot, those of a shell with a dollar sign.
var placeholder = regexp.MustCompile(`\{[a-z]+[0-9]*\}`)

// NodeValues are the placeholders for nodes: {node1} and {addr1} of the first, and so on.
func NodeValues(nodes []Node) map[string]string {
	values := map[string]string{}
	for i, n := range nodes {
		values[fmt.Sprintf("node%d", i+1)], values[fmt.Sprintf("addr%d", i+1)] = n.Name, n.Addr
	}
	return values
}

// Fill puts values in the place of placeholders. Those that have none stay.
func Fill(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		if v, ok := values[p[1:len(p)-1]]; ok {
			return v
		}
		return p
	})
}

// Unfilled has the names of placeholders that have no value yet in capitals, as in ADDRESS:8080.
func Unfilled(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(p string) string { return strings.ToUpper(p[1 : len(p)-1]) })
}

// Fill is the step with values in the place of placeholders.
func (s Step) Fill(values map[string]string) Step {
	s.Title, s.Intro, s.Outcome = Fill(s.Title, values), Fill(s.Intro, values), Fill(s.Outcome, values)
	s.Commands, s.Expected = slices.Clone(s.Commands), slices.Clone(s.Expected)
	for i := range s.Commands {
		s.Commands[i].Line = Fill(s.Commands[i].Line, values)
	}
	for i := range s.Expected {
		s.Expected[i] = Expectation{Fill(s.Expected[i].Line, values), Fill(s.Expected[i].Hint, values)}
	}
	return s
}

// Needs are the lesson's values that a text has placeholders of.
func (l Lesson) Needs(text string) (needed []Value) {
	for _, v := range l.Values {
		if strings.Contains(text, "{"+v.Name+"}") {
			needed = append(needed, v)
		}
	}
	return needed
}

// text is all of a step in which a placeholder can stand.
func (s Step) text() string {
	var b strings.Builder
	for _, part := range []string{s.Title, s.Intro, s.Outcome} {
		b.WriteString(part + "\n")
	}
	for _, c := range s.Commands {
		b.WriteString(c.Line + "\n")
	}
	for _, e := range s.Expected {
		b.WriteString(e.Line + "\n" + e.Hint + "\n")
	}
	return b.String()
}

// Before is what a step says before its commands have run, and After all of it: values that the commands make can only
// be asked for then.
func (s Step) Before() string {
	return Step{Title: s.Title, Intro: s.Intro, Commands: s.Commands}.text()
}

// After is all text of a step.
func (s Step) After() string { return s.text() }

// Resume is the index of the step to go on with: the one after done, the last that was ended (-1: none), unless what
// that or an earlier step made is no longer so. Then it is the one after the latest step that still holds. holds tells
// of one step whether it does; a step that expects nothing tells nothing.
func Resume(steps []Step, done int, holds func(Step) bool) int {
	done = min(done, len(steps)-1)
	for i := done; i >= 0; i-- {
		switch {
		case len(steps[i].Expected) == 0:
		case holds(steps[i]):
			return done + 1
		default:
			done = i - 1
		}
	}
	return max(done+1, 0)
}
