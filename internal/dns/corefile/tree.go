package corefile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// line is one line of a Corefile: its words, and the lines of the block that it opens.
type line struct {
	words []string
	block []*line
	open  bool // it opens a block, perhaps an empty one
	at    string
}

func (l *line) errorf(format string, v ...any) error {
	return fmt.Errorf("%s: %s", l.at, fmt.Sprintf(format, v...))
}

// read parses the text of a file of that name. Imports of the files in custom are put in their place.
func read(name, text string, custom map[string]string) ([]*line, error) {
	root := &line{open: true}
	stack := []*line{root}
	n := 0
	for s := range strings.Lines(text) {
		n++
		at := fmt.Sprintf("%s, line %d", name, n)
		words, err := split(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		top := stack[len(stack)-1]
		switch {
		case len(words) == 0:
		case words[0] == "}":
			if len(stack) == 1 || len(words) > 1 {
				return nil, fmt.Errorf("%s: a } that closes nothing, or with words behind it", at)
			}
			stack = stack[:len(stack)-1]
		case words[0] == "import":
			lines, err := imported(words[1:], at, custom)
			if err != nil {
				return nil, err
			}
			for _, w := range words[1:] {
				lines = append(lines, snippet(root, w)...)
			}
			top.block = append(top.block, lines...)
		default:
			l := &line{words: words, at: at}
			top.block = append(top.block, l)
			if words[len(words)-1] == "{" {
				l.words, l.open = words[:len(words)-1], true
				stack = append(stack, l)
			}
		}
	}
	if len(stack) > 1 {
		return nil, stack[len(stack)-1].errorf("a { that is never closed")
	}
	return slices.DeleteFunc(root.block, isSnippet), nil
}

// isSnippet reports whether a block is "(NAME) { ... }": lines for where its name is imported.
func isSnippet(l *line) bool {
	return l.open && len(l.words) == 1 && strings.HasPrefix(l.words[0], "(") && strings.HasSuffix(l.words[0], ")")
}

// snippet are the lines of the one of that name in front of here.
func snippet(root *line, name string) []*line {
	for _, l := range root.block {
		if isSnippet(l) && l.words[0] == "("+name+")" {
			return l.block
		}
	}
	return nil
}

// imported are the lines of the files in custom which a pattern means. Only the last part of it counts: the folder is
// where a container would have them.
func imported(patterns []string, at string, custom map[string]string) (out []*line, err error) {
	for _, p := range patterns {
		for _, name := range slices.Sorted(maps.Keys(custom)) {
			if ok, err := path.Match(path.Base(p), name); err != nil {
				return nil, fmt.Errorf("%s: import %s: %w", at, p, err)
			} else if !ok {
				continue
			}
			lines, err := read(name, custom[name], nil)
			if err != nil {
				return nil, err
			}
			out = append(out, lines...)
		}
	}
	return out, nil
}

// split makes words of a line: between spaces, or in double quotes, where \" is one of them, up to a #.
func split(s string) (words []string, err error) {
	for s = strings.TrimSpace(s); s != "" && s[0] != '#'; s = strings.TrimSpace(s) {
		if s[0] != '"' {
			word, rest := s, ""
			if i := strings.IndexAny(s, " \t"); i >= 0 {
				word, rest = s[:i], s[i:]
			}
			words, s = append(words, word), rest
			continue
		}
		end := 1
		for end < len(s) && s[end] != '"' {
			if s[end] == '\\' && end+1 < len(s) && s[end+1] == '"' {
				end++
			}
			end++
		}
		if end >= len(s) {
			return nil, fmt.Errorf("a quotation mark without an end")
		}
		words, s = append(words, strings.ReplaceAll(s[1:end], `\"`, `"`)), s[end+1:]
	}
	return words, nil
}
