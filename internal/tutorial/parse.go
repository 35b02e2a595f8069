package tutorial

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Parse reads a lesson. The head of the archive has one "key: value" a line, each file is a step named by its id.
func Parse(name string, text []byte) (Lesson, error) {
	l := Lesson{Name: name, Nodes: 1}
	archive := txtar.Parse(text)
	for line := range strings.Lines(string(archive.Comment)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			return l, fmt.Errorf("write `key: value`: %q is none", line)
		}
		if err := l.set(key, value); err != nil {
			return l, fmt.Errorf("%s: %w", key, err)
		}
	}
	if l.Title == "" || l.Teaches == "" || l.Minutes == 0 || len(archive.Files) == 0 {
		return l, errors.New("give a title, what it teaches, the minutes, and steps")
	}
	for _, f := range archive.Files {
		s, err := parseStep(f.Name, string(f.Data))
		if err != nil {
			return l, fmt.Errorf("step %s: %w", f.Name, err)
		}
		l.Steps = append(l.Steps, s)
	}
	return l, nil
}

func (l *Lesson) set(key, value string) (err error) {
	switch key {
	case "title":
		l.Title = value
	case "teaches":
		l.Teaches = value
	case "minutes":
		l.Minutes, err = strconv.Atoi(value)
	case "nodes":
		l.Nodes, err = strconv.Atoi(value)
	case "programs":
		l.Programs = strings.Fields(value)
	case "images":
		l.Images = strings.Fields(value)
	case "examples":
		words := strings.Fields(value)
		l.Folder, l.Files = words[0], words[1:]
	case "adapt":
		words := strings.Fields(value)
		if len(words) != 2 {
			return errors.New("write what stands there and what is to stand there")
		}
		l.Adapt = append(l.Adapt, Replacement{words[0], words[1]})
	case "value":
		name, command, ok := strings.Cut(value, " $ ")
		if !ok {
			return errors.New("write NAME $ COMMAND")
		}
		l.Values = append(l.Values, Value{name, command})
	case "clean":
		l.Clean = append(l.Clean, value)
	default:
		return errors.New("there is no such key")
	}
	return err
}

// parseStep reads a step: a line with its title, text, commands, checks with their hints, and text.
func parseStep(id, text string) (Step, error) {
	s := Step{ID: id}
	var intro, outcome []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		switch {
		case mark == "#" && s.Title == "":
			s.Title = rest
		case mark == "$" || mark == "$!":
			s.Commands = append(s.Commands, Command{Line: rest, Fails: mark == "$!"})
		case mark == ">" && len(s.Commands) > 0 && len(s.Expected) == 0:
			s.Commands[len(s.Commands)-1].Line += "\n" + rest
		case mark == "?":
			if _, err := ParseCheck(rest); err != nil {
				return s, err
			}
			s.Expected = append(s.Expected, Expectation{Line: rest})
		case mark == "!" && len(s.Expected) > 0:
			hint := &s.Expected[len(s.Expected)-1].Hint
			*hint = strings.TrimPrefix(*hint+"\n"+rest, "\n")
		case len(s.Commands) == 0:
			intro = append(intro, line)
		default:
			outcome = append(outcome, line)
		}
	}
	s.Intro, s.Outcome = strings.Trim(strings.Join(intro, "\n"), "\n"), strings.Trim(strings.Join(outcome, "\n"), "\n")
	if s.Title == "" || s.Intro == "" || len(s.Commands) == 0 {
		return s, errors.New("give a title, what the step is about, and a command")
	}
	return s, nil
}
