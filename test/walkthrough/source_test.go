//go:build linux

package walkthrough

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"minato/test/world"
)

// articlesFolder is where the articles may be, beside this checkout.
const articlesFolder = "../../../shared/articles"

// article says how to read one of the articles. Its text is not part of this project: the checksum tells that what
// is read is what these rules were made for.
type article struct {
	file, sha256 string
	command      *regexp.Regexp // a line with a command, which is its group
	yaml         []yamlBlock    // its files, in order
	fenced       bool           // its files are fenced blocks instead, each with its name in a comment
	excused      []string       // commands which the steps of the tests do not run, and need not
}

// yamlBlock is one file of an article: the first block after start that begins with a kind's first line.
type yamlBlock struct {
	name   string
	indent []int // of every line, where the article has lost it
}

// source is where a walkthrough takes its files and commands from.
type source struct {
	dir   string          // of the YAML files
	text  string          // of the article
	typed map[string]bool // the article's commands -> whether a step has run them; nil for the examples
	done  map[string]bool // lines that Once has run
}

// fromEach runs steps on the examples of a folder, and on the article's own files.
func fromEach(t *testing.T, examples string, a article, steps func(t *testing.T, s *source)) {
	t.Run("Examples", func(t *testing.T) {
		dir, err := filepath.Abs(filepath.Join("../../examples", examples))
		if err != nil {
			t.Fatal(err)
		}
		steps(t, &source{dir: dir, done: map[string]bool{}})
	})
	t.Run("Article", func(t *testing.T) {
		s := a.read(t)
		steps(t, s)
		t.Run("EveryCommandWasRun", func(t *testing.T) {
			for command, run := range s.typed {
				if !run && !slices.Contains(a.excused, command) {
					t.Errorf("no step runs %q", command)
				}
			}
		})
	})
}

// fromArticle reports whether the source is the article.
func (s *source) fromArticle() bool { return s.typed != nil }

// line returns a command that the article types, give or take names and addresses, and notes that it is run.
func (s *source) line(t *testing.T, command string) string {
	t.Helper()
	if s.fromArticle() {
		if _, ok := s.typed[normal(command)]; !ok {
			t.Fatalf("the article does not type %q", normal(command))
		}
		s.typed[normal(command)] = true
	}
	return command
}

// shell runs a line on the host in the folder of the files, and returns what it prints. A failure ends the step.
func (s *source) shell(t *testing.T, w *world.World, command string) string {
	t.Helper()
	r := w.Shell(s.dir, s.line(t, command))
	if r.Err != nil {
		t.Fatalf("%s: %v\n%s", command, r.Err, r.Output())
	}
	return r.Stdout
}

// once is shell for what later steps need as well: the first that needs it runs it.
func (s *source) once(t *testing.T, w *world.World, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if !s.done[command] {
			s.shell(t, w, command)
			s.done[command] = true
		}
	}
}

// read takes the article's files and commands, or skips the test.
func (a article) read(t *testing.T) *source {
	t.Helper()
	folder := articlesFolder
	if dir := os.Getenv("MINATO_ARTICLES"); dir != "" {
		folder = dir
	}
	text, err := os.ReadFile(filepath.Join(folder, a.file))
	if err != nil {
		t.Skipf("the article is not at hand (set MINATO_ARTICLES to its folder): %v", err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(text)); sum != a.sha256 {
		t.Fatalf("%s is another text than these rules were made for: SHA-256 %s, want %s", a.file, sum, a.sha256)
	}
	lines := strings.Split(string(text), "\n")
	s := &source{dir: t.TempDir(), text: string(text), typed: map[string]bool{}, done: map[string]bool{}}
	for _, command := range a.commands(lines) {
		s.typed[normal(command)] = false
	}
	if a.fenced {
		for name, content := range fencedFiles(string(text)) {
			if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	rest := lines
	for _, block := range a.yaml {
		var content string
		content, rest = block.take(t, rest)
		if err := os.WriteFile(filepath.Join(s.dir, block.name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// commands are those on the lines that have one. A shell's "> " continues the line before.
func (a article) commands(lines []string) []string {
	var all []string
	for _, l := range lines {
		if more, ok := strings.CutPrefix(l, "> "); ok && len(all) > 0 && strings.Contains(all[len(all)-1], "; do") {
			all[len(all)-1] += " " + more
		} else if m := a.command.FindStringSubmatch(l); m != nil {
			all = append(all, m[1])
		}
	}
	return all
}

// take returns the block as a file, and the lines after it.
func (b yamlBlock) take(t *testing.T, lines []string) (string, []string) {
	t.Helper()
	first := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "apiVersion: ") })
	if first < 0 {
		t.Fatalf("the article has no %s", b.name)
	}
	lines = lines[first:]
	if b.indent == nil {
		end := slices.Index(lines, "")
		return strings.Join(lines[:end], "\n") + "\n", lines[end:]
	}
	var file strings.Builder
	for i, n := range b.indent {
		fmt.Fprintf(&file, "%*s%s\n", n, "", lines[i])
	}
	return file.String(), lines[len(b.indent):]
}

// fencedFiles are the YAML blocks of a Markdown text by the names in their first lines.
func fencedFiles(text string) map[string]string {
	files := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# (\\S+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		files[m[1]] = m[2]
	}
	return files
}

var (
	alias     = regexp.MustCompile(`\bk (get|apply|exec|describe|delete|run)\b`)
	comment   = regexp.MustCompile(` #.*$`)
	podName   = regexp.MustCompile(`\bsample-deployment-[0-9a-z]+-[0-9a-z]+\b`)
	anAddress = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)
)

// normal takes out of a command what differs from one cluster, tool or age of kubectl to another.
func normal(command string) string {
	command = strings.Replace(comment.ReplaceAllString(command, ""), "minikube service ", "minato service ", 1)
	command = alias.ReplaceAllString(command, "kubectl $1")
	command = podName.ReplaceAllString(command, "POD")
	command = anAddress.ReplaceAllString(command, "ADDRESS")
	// Today's kubectl wants -- before a command; the articles' took it without.
	return strings.Join(strings.Fields(strings.ReplaceAll(command, " -- ", " ")), " ")
}
