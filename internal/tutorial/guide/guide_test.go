package guide

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"minato/internal/tutorial"
)

const lesson = `title: T
teaches: x
minutes: 1
value: ip $ get ip
-- make --
# Make it
Why it is made.

$ make thing
$ look at {ip}
? prints there $ is thing
! make it by hand
It has {ip}.
-- see --
# See it
Why it is seen.

$ see thing
? prints there $ is thing
`

// fakeHost is a cluster with one thing in it, and a namespace that remembers a step.
type fakeHost struct {
	thing     bool
	broken    bool // `make thing` makes nothing
	label     string
	step      string
	ran       []string
	keys      []string // typed one after the other; "" is Enter, "-" nothing for a while
	onKey     func(n int)
	keysAsked int
}

func (h *fakeHost) Run(_ context.Context, line string) (int, error) {
	h.ran = append(h.ran, line)
	if line == "make thing" && !h.broken {
		h.thing = true
	}
	return 0, nil
}

func (h *fakeHost) Ask(_ context.Context, q tutorial.Question) (tutorial.Answer, error) {
	line := q.Line + strings.Join(q.Argv, " ")
	switch {
	case strings.Contains(line, "get namespace") && h.label != "":
		return tutorial.Answer{Out: h.label + " " + h.step + " Active"}, nil
	case strings.Contains(line, "get namespace"):
		return tutorial.Answer{}, nil
	case strings.Contains(line, "label namespace"):
		h.label = "x"
	case strings.Contains(line, "annotate namespace"):
		h.step = line[strings.LastIndex(line, "=")+1:]
	case line == "get ip" && h.thing:
		return tutorial.Answer{Out: "10.0.0.1\n"}, nil
	case line == "get ip":
		return tutorial.Answer{Code: 1}, nil
	case line == "is thing" && h.thing:
		return tutorial.Answer{Out: "there"}, nil
	}
	return tutorial.Answer{}, nil
}

func (h *fakeHost) Key(ctx context.Context, patience time.Duration) (string, bool, error) {
	h.keysAsked++
	if h.onKey != nil {
		h.onKey(h.keysAsked)
	}
	if len(h.keys) == 0 || h.keys[0] == "-" {
		h.keys = h.keys[min(1, len(h.keys)):]
		time.Sleep(patience)
		return "", false, ctx.Err()
	}
	key := h.keys[0]
	h.keys = h.keys[1:]
	return key, true, nil
}

func walk(t *testing.T, h *fakeHost, ask bool) (string, error) {
	t.Helper()
	l, err := tutorial.Parse("x", []byte(lesson))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	synctest.Test(t, func(t *testing.T) {
		g := &Guide{Lesson: l, Lang: tutorial.English, Host: h, Out: &out, Ask: ask, Paint: func(_ Style, text string) string { return text }}
		err = g.Walk(t.Context())
	})
	return out.String(), err
}

func wantIn(t *testing.T, out string, all ...string) {
	t.Helper()
	for _, text := range all {
		at := strings.Index(out, text)
		if at < 0 {
			t.Errorf("%q is not there, in this order, in:\n%s", text, out)
			return
		}
		out = out[at+len(text):]
	}
}

func TestWithNobodyThereEveryCommandRuns(t *testing.T) {
	h := &fakeHost{}
	out, err := walk(t, h, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"make thing", "look at 10.0.0.1", "see thing"}; !slices.Equal(h.ran, want) {
		t.Errorf("ran %q, want %q", h.ran, want)
	}
	wantIn(t, out, "x 1/2", "Make it", "Why it is made.", "$ make thing", "✓", "It has 10.0.0.1.", "x 2/2", "✓")
	if h.step != "see" {
		t.Errorf("the namespace remembers step %q", h.step)
	}
}

func TestWhatIsNotAsExpectedIsTold(t *testing.T) {
	out, err := walk(t, &fakeHost{broken: true}, false)
	if !errors.Is(err, ErrNotAsExpected) {
		t.Errorf("error %v", err)
	}
	wantIn(t, out, "✗", "wanted", "`is thing` prints there", "found", "it prints nothing", "try", "make it by hand")
}

func TestAPersonMayTypeElsewhere(t *testing.T) {
	h := &fakeHost{keys: []string{"-", "-", "-", "n"}}
	h.onKey = func(n int) { h.thing = n >= 3 }
	out, err := walk(t, h, true)
	if err != nil || len(h.ran) != 0 {
		t.Errorf("ran %q: %v", h.ran, err)
	}
	wantIn(t, out, "    make thing", "    look at IP", "another terminal", "✓", "It has 10.0.0.1.", "n: next")
}

func TestEnterRunsTheCommandsHere(t *testing.T) {
	h := &fakeHost{keys: []string{"", "what?", "s"}}
	out, err := walk(t, h, true)
	if err != nil || !slices.Equal(h.ran, []string{"make thing", "look at 10.0.0.1"}) {
		t.Errorf("ran %q: %v", h.ran, err)
	}
	wantIn(t, out, "Enter: run it here", "✓", "Enter, s or q?")
}

func TestAFailedStepCanBeTriedAgain(t *testing.T) {
	h := &fakeHost{broken: true, keys: []string{"", "", "r", "q"}}
	h.onKey = func(n int) { h.broken = n < 3 }
	out, err := walk(t, h, true)
	if !errors.Is(err, ErrLeft) || h.step != "make" {
		t.Errorf("left after step %q: %v", h.step, err)
	}
	wantIn(t, out, "✗", "Enter: look again", "✗", "$ make thing", "✓", "x 2/2")
}

func TestALessonGoesOnWhereItWasLeft(t *testing.T) {
	h := &fakeHost{thing: true, label: "x", step: "make"}
	out, err := walk(t, h, false)
	if err != nil || !slices.Equal(h.ran, []string{"see thing"}) {
		t.Errorf("ran %q: %v", h.ran, err)
	}
	wantIn(t, out, "Going on with step 2; 1 are done.", "x 2/2")

	h = &fakeHost{label: "x", step: "make"} // and the thing is gone
	out, err = walk(t, h, false)
	if err != nil || h.ran[0] != "make thing" {
		t.Errorf("ran %q: %v", h.ran, err)
	}
	wantIn(t, out, "has changed: going on with step 1", "x 1/2")
}

func TestANamespaceOfSomebodyElseIsLeftAlone(t *testing.T) {
	h := &fakeHost{label: "mine"}
	if _, err := walk(t, h, false); err == nil || !strings.Contains(err.Error(), "is not the tutorial's") || len(h.ran) != 0 {
		t.Errorf("ran %q: %v", h.ran, err)
	}
	if err := Clean(t.Context(), h, tutorial.Lesson{Name: "x"}, nil); err == nil {
		t.Error("it was deleted")
	}
}

func TestCutCountsWideCharacters(t *testing.T) {
	for text, want := range map[string]string{"abc": "abc", "abcdefghij": "abcdefghi…", "日本語の文です": "日本語の…"} {
		if got := cut(text, 10); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
