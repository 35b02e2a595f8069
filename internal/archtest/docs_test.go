package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is one Markdown file.
type page struct{ file, text string }

// pages are all Markdown files of the project, by path below the root.
func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	root := "../.."
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && rel != ".") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".md" {
			return nil
		}
		b, err := os.ReadFile(p)
		all = append(all, page{filepath.ToSlash(rel), string(b)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d pages: the walk is broken", len(all))
	}
	return all
}

func pageAt(t *testing.T, file string) page {
	t.Helper()
	all := pages(t)
	i := slices.IndexFunc(all, func(p page) bool { return p.file == file })
	if i < 0 {
		t.Fatalf("there is no %s", file)
	}
	return all[i]
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notWord = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// prose is a page without its fenced blocks.
func (p page) prose() string { return fence.ReplaceAllString(p.text, "") }

// anchors are the fragments by which GitHub links to the page's headings.
func (p page) anchors() (all []string) {
	for _, m := range heading.FindAllStringSubmatch(p.prose(), -1) {
		all = append(all, strings.ReplaceAll(notWord.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	all := pages(t)
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // another site, which a test does not ask
			}
			to := p.file
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(p.file), target))
			}
			if _, err := os.Stat(filepath.Join("../..", to)); err != nil {
				t.Errorf("%s links to %s, which is not there", p.file, m[1])
				continue
			}
			i := slices.IndexFunc(all, func(q page) bool { return q.file == to })
			if fragment != "" && (i < 0 || !slices.Contains(all[i].anchors(), fragment)) {
				t.Errorf("%s links to %s, which has no such heading", p.file, m[1])
			}
		}
	}
}

var (
	// a command line of minato: typed at a prompt, in a block of commands, or between backquotes
	typed     = regexp.MustCompile("(?m)(?:^\\$ |^ *|`|\\| |\\$\\()(?:sudo )?(?:bin/)?minato ([a-z]+)( [a-z]+)?")
	described = regexp.MustCompile(`(?m)^### minato ([a-z]+)(?: ([a-z]+)(?: |$))?`)
)

// Whether docs/cli.md has all verbs, and only those, is tested beside the verbs.
func TestPagesNameOnlyVerbsThatExist(t *testing.T) {
	verbs := map[string][]string{"help": nil}
	for _, m := range described.FindAllStringSubmatch(pageAt(t, "docs/cli.md").text, -1) {
		verbs[m[1]] = append(verbs[m[1]], m[2])
	}
	if len(verbs) < 10 {
		t.Fatalf("docs/cli.md has only %d verbs: the pattern is broken", len(verbs))
	}
	named := 0
	for _, p := range pages(t) {
		for _, line := range commands(p) {
			m := typed.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			named++
			subs, ok := verbs[m[1]]
			if !ok {
				t.Errorf("%s: minato has no verb %q: %s", p.file, m[1], line)
			}
			if group := m[1] == "node" || m[1] == "image"; group && m[2] != "" && !slices.Contains(subs, strings.TrimSpace(m[2])) {
				t.Errorf("%s: minato %s has no verb%s: %s", p.file, m[1], m[2], line)
			}
		}
	}
	if named < 50 {
		t.Errorf("found only %d command lines: the pattern is broken", named)
	}
}

var (
	quoted   = regexp.MustCompile("`[^`]+`")
	indented = regexp.MustCompile("(?m)^    .*$")
)

// commands are the lines of a page that may be command lines: those of blocks, fenced or indented, and what stands
// between backquotes.
func commands(p page) []string {
	var all []string
	for _, block := range fence.FindAllString(p.text, -1) {
		for line := range strings.Lines(block) {
			if !strings.HasPrefix(line, "minato: ") {
				all = append(all, strings.TrimRight(line, "\n"))
			}
		}
	}
	all = append(all, indented.FindAllString(p.prose(), -1)...)
	return append(all, quoted.FindAllString(p.prose(), -1)...)
}

var (
	testNamed    = regexp.MustCompile("`(Test[A-Z][A-Za-z0-9_]+)(?:/[^`]*)?`")
	scriptNamed  = regexp.MustCompile("`([a-z0-9/_.-]+[.]txtar)`")
	testDeclared = regexp.MustCompile(`(?m)^func (Test[A-Z][A-Za-z0-9_]+)\(`)
)

// A page that names a test as proof of what it says must not outlive the test.
func TestTestsThatPagesNameExist(t *testing.T) {
	declared := map[string]bool{}
	err := filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range testDeclared.FindAllSubmatch(b, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, p := range pages(t) {
		for _, m := range testNamed.FindAllStringSubmatch(p.prose(), -1) {
			if named++; !declared[m[1]] {
				t.Errorf("%s names the test %s, which is not there", p.file, m[1])
			}
		}
		for _, m := range scriptNamed.FindAllStringSubmatch(p.prose(), -1) {
			named++
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
				t.Errorf("%s names the script %s, which is not there", p.file, m[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("found only %d tests: the pattern is broken", named)
	}
}

// headings are those of every component page, in this order.
var headings = []string{"Name", "Description", "Plan", "Applier", "Settings", "Examples", "Limits"}

var section = regexp.MustCompile(`(?m)^## (.+)$`)

func TestComponentPagesHaveTheFixedHeadings(t *testing.T) {
	for _, p := range pages(t) {
		if filepath.Dir(p.file) != "docs" || p.file == "docs/README.md" {
			continue
		}
		var have []string
		for _, m := range section.FindAllStringSubmatch(p.prose(), -1) {
			have = append(have, m[1])
		}
		if !slices.Equal(have, headings) {
			t.Errorf("%s has the headings %q, want %q", p.file, have, headings)
		}
	}
}

func TestIndexNamesEveryPage(t *testing.T) {
	index := pageAt(t, "docs/README.md")
	for _, p := range pages(t) {
		rel, below := strings.CutPrefix(p.file, "docs/")
		if below && rel != "README.md" && !strings.Contains(index.text, "("+rel+")") {
			t.Errorf("docs/README.md does not link to %s", rel)
		}
	}
}
