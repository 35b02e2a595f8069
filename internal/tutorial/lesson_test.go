package tutorial

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"minato/examples"
)

func lessons(t *testing.T, lang Lang) []Lesson {
	t.Helper()
	all, err := Lessons(lang)
	if err != nil || len(all) != 5 {
		t.Fatalf("%d lessons in %s, want 5: %v", len(all), lang, err)
	}
	return all
}

// done is what a lesson does, without what it says.
func done(l Lesson) Lesson {
	l.Title, l.Teaches = "", ""
	l.Steps = slices.Clone(l.Steps)
	for i, s := range l.Steps {
		s.Title, s.Intro, s.Outcome = "", "", ""
		s.Expected = slices.Clone(s.Expected)
		for j := range s.Expected {
			s.Expected[j].Hint = ""
		}
		l.Steps[i] = s
	}
	return l
}

func TestEveryLessonDoesTheSameInBothLanguages(t *testing.T) {
	en, ja := lessons(t, English), lessons(t, Japanese)
	for i := range en {
		if diff := cmp.Diff(done(en[i]), done(ja[i])); diff != "" {
			t.Errorf("lesson %s (-en +ja):\n%s", en[i].Name, diff)
		}
	}
}

func TestEveryTextIsTranslated(t *testing.T) {
	kana := regexp.MustCompile(`[\p{Hiragana}\p{Katakana}]`)
	en, ja := lessons(t, English), lessons(t, Japanese)
	for i, l := range ja {
		for j, s := range l.Steps {
			other := en[i].Steps[j]
			pairs := [][2]string{{other.Intro, s.Intro}, {other.Outcome, s.Outcome}}
			for k, e := range s.Expected {
				pairs = append(pairs, [2]string{other.Expected[k].Hint, e.Hint})
			}
			for _, p := range pairs {
				if (p[0] == "") != (p[1] == "") || p[1] != "" && !kana.MatchString(p[1]) || kana.MatchString(p[0]) {
					t.Errorf("lesson %s, step %s: not in the language of its file:\n%s\n%s", l.Name, s.ID, p[0], p[1])
				}
			}
		}
	}
}

// columns is how wide a line is on a terminal: characters of East Asia take two.
func columns(line string) (n int) {
	for _, r := range line {
		if n++; r >= 0x1100 && r != '─' {
			n++
		}
	}
	return n
}

func TestTextFitsEightyColumnsWithAddressesInIt(t *testing.T) {
	values := NodeValues([]Node{{"node1", "192.168.100.111"}, {"node2", "192.168.100.112"}})
	values["ip"], values["address"], values["podip"], values["port"] = "10.107.250.111", "192.168.100.200", "10.244.111.11", "31000"
	for _, lang := range Langs() {
		for _, l := range lessons(t, lang) {
			for _, s := range l.Steps {
				s = s.Fill(values)
				for line := range strings.Lines(s.Intro + "\n" + s.Outcome) {
					if n := columns(strings.TrimRight(line, "\n")); n > 80 {
						t.Errorf("%s, lesson %s, step %s: %d columns: %s", lang, l.Name, s.ID, n, line)
					}
				}
			}
		}
	}
}

func TestEveryPlaceholderHasAValue(t *testing.T) {
	for _, lang := range Langs() {
		for _, l := range lessons(t, lang) {
			values := NodeValues(make([]Node, l.Nodes))
			for _, v := range l.Values {
				values[v.Name] = "x"
			}
			known := values
			for i := range l.Nodes {
				n := string(rune('1' + i))
				known["node"+n], known["addr"+n] = "x", "x"
			}
			text := strings.Join(l.Clean, "\n")
			for _, a := range l.Adapt {
				text += a.New
			}
			for _, s := range l.Steps {
				text += s.After()
			}
			if left := placeholder.FindString(Fill(text, known)); left != "" {
				t.Errorf("%s, lesson %s: %s stands for nothing on %d nodes", lang, l.Name, left, l.Nodes)
			}
		}
	}
}

func TestLessonsKeepToTheirNamespace(t *testing.T) {
	kubectl := regexp.MustCompile(`kubectl (\S+ \S+)`)
	for _, l := range lessons(t, English) {
		if len(l.Steps) < 5 || l.Minutes < 5 || len(l.Images) == 0 {
			t.Errorf("lesson %s has %d steps, %d minutes, images %v", l.Name, len(l.Steps), l.Minutes, l.Images)
		}
		for _, s := range l.Steps {
			if len(s.Expected) == 0 {
				t.Errorf("lesson %s, step %s expects nothing: any cluster would do", l.Name, s.ID)
			}
			for _, c := range s.Commands {
				for _, m := range kubectl.FindAllStringSubmatch(c.Line, -1) {
					// What is done to nodes is undone by clean.
					if m[1] != "-n "+l.Name && !(m[1] == "label node" && len(l.Clean) > 0) {
						t.Errorf("lesson %s, step %s: %s", l.Name, s.ID, c.Line)
					}
				}
			}
		}
	}
}

func TestFilesOfLessonsAreExamples(t *testing.T) {
	for _, l := range lessons(t, English) {
		all := ""
		for _, f := range l.Files {
			text, err := examples.Files.ReadFile(l.Folder + "/" + f)
			if err != nil {
				t.Errorf("lesson %s: %v", l.Name, err)
			}
			if strings.Contains(string(text), "namespace:") {
				t.Errorf("lesson %s: %s names a namespace of its own", l.Name, f)
			}
			all += string(text)
		}
		for _, a := range l.Adapt {
			if !strings.Contains(all, a.Old) {
				t.Errorf("lesson %s adapts %s, which no file has", l.Name, a.Old)
			}
		}
		for _, s := range l.Steps {
			for _, m := range regexp.MustCompile(`-f (\S+)`).FindAllStringSubmatch(s.After(), -1) {
				if !slices.Contains(l.Files, m[1]) {
					t.Errorf("lesson %s, step %s: there is no file %s", l.Name, s.ID, m[1])
				}
			}
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	const head = "title: T\nteaches: x\nminutes: 1\n-- a --\n"
	for text, want := range map[string]string{
		"title: T\n":                          "steps",
		"nonsense\n" + head:                   "key: value",
		"colour: red\n" + head:                "no such key",
		head + "# T\ntext\n":                  "a command",
		head + "# T\ntext\n$ x\n? ponies 3\n": "no check",
		head + "# T\ntext\n$ x\n? pods a=b\n": "no check",
		head + "# T\ntext\n$ x\n? prints (\n": "prints",
	} {
		if _, err := Parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

func TestAStepIsReadInItsParts(t *testing.T) {
	l, err := Parse("x", []byte("title: T\nteaches: x\nminutes: 1\nvalue: ip $ echo {node1}\n-- a --\n# Title\nwhat\n\n  picture\n\n$ one\n> two\n$! three {ip}\n? pods a=b 3\n! hint\n! more\nseen\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Step{ID: "a", Title: "Title", Intro: "what\n\n  picture", Outcome: "seen",
		Commands: []Command{{Line: "one\ntwo"}, {Line: "three {ip}", Fails: true}},
		Expected: []Expectation{{"pods a=b 3", "hint\nmore"}}}
	if diff := cmp.Diff([]Step{want}, l.Steps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := l.Needs(want.Before()); len(got) != 1 || got[0] != (Value{"ip", "echo {node1}"}) {
		t.Errorf("values of the step: %v", got)
	}
	if got := Unfilled("curl {ip}:80 ${x}"); got != "curl IP:80 $X" && !utf8.ValidString(got) {
		t.Error(got)
	}
}

func TestLocaleLang(t *testing.T) {
	for locale, want := range map[string]Lang{"": English, "C.UTF-8": English, "ja_JP.UTF-8": Japanese, "ja": Japanese, "ja.utf8": Japanese, "jam_JM": English, "de_DE": English} {
		if got := LocaleLang(locale); got != want {
			t.Errorf("%q: %s, want %s", locale, got, want)
		}
	}
}

func TestResume(t *testing.T) {
	steps := []Step{{ID: "a", Expected: []Expectation{{}}}, {ID: "look"}, {ID: "b", Expected: []Expectation{{}}}, {ID: "c", Expected: []Expectation{{}}}}
	for _, c := range []struct {
		name  string
		done  int
		holds string
		want  int
	}{
		{"nothing was done", -1, "abc", 0},
		{"all holds", 2, "ab", 3},
		{"after a step that expects nothing", 1, "a", 2},
		{"what the last step made is gone", 2, "a", 2},
		{"all is gone", 3, "", 0},
		{"an earlier step holds no longer, as it should be", 3, "c", 4},
	} {
		if got := Resume(steps, c.done, func(s Step) bool { return strings.Contains(c.holds, s.ID) }); got != c.want {
			t.Errorf("%s: step %d, want %d", c.name, got, c.want)
		}
	}
}
